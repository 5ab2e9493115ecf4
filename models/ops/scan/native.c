/* The law of a matrix state, token by token, with its backward pass: forget, compare, write, read.

     S_ = a * S          e = b (v - S_^T p)  or  b v          S <- S_ + w e^T          y = S^T q

   p is what is compared and w what is written: both are the key in a delta rule. With BEFORE the comparison reads S, not S_.

   Built for one shape of state, so that its rows stay in registers:
     REAL     float or double            K, V      key and value width          LANES   numbers a vector, a divisor of V
     DECAY    0 none, 1 a head, 2 a key channel
     COMPARE  0 or 1                     BEFORE    0 or 1                       TIED    1 where p is w: their gradients are one

   Layouts: q, p, w [batch, time, heads or 1, K]; v, y [batch, time, heads, V]; a [batch, time, heads(, K)] the decay itself;
   b [batch, time, heads]; states [batch, heads, K, V]; kept [batch, heads, pieces, K, V], a state before every STEP tokens. */
#include "../native.h"

#define STEP 16
#define COLUMNS (V / LANES)
#define EACH_COLUMN(j) _Pragma("GCC unroll 16") for (int j = 0; j < COLUMNS; j++) /* unrolled, its sums stay in registers */
#define EACH_ROW(i) _Pragma("GCC unroll 16") for (int i = 0; i < K; i++) /* whole in the narrowest, which run twice as fast so */
typedef vec row[COLUMNS];
typedef row matrix[K];

typedef struct {
  long batch, time, heads, shared; /* shared: q, p and w have one head for all */
  const real *q, *p, *w, *v, *a, *b;
} text;

typedef struct {
  const real *q, *p, *w, *v, *a;
  real b;
} token;

static inline token at(const text *x, long n, long t, long h) {
  long place = (n * x->time + t) * x->heads + h, key = (x->shared ? n * x->time + t : place) * K;
  token one = {x->q + key, x->p + key, x->w + key, x->v + place * V, 0, x->b ? x->b[place] : 1};
  if (DECAY) one.a = x->a + place * (DECAY == 2 ? K : 1);
  return one;
}

static inline real kept_of(const token *x, int i) { return DECAY == 2 ? x->a[i] : DECAY == 1 ? x->a[0] : 1; }

/* What a token writes: error is v - S_^T p, written is b times that. */
static inline void compare(const matrix S, const token *x, row error, row written) {
  row known;
  EACH_COLUMN(j) known[j] = (vec){0};
  if (COMPARE) EACH_ROW(i) {
    real p = BEFORE ? x->p[i] : x->p[i] * kept_of(x, i);
    EACH_COLUMN(j) known[j] += S[i][j] * p;
  }
  EACH_COLUMN(j) {
    error[j] = ((const vec *)x->v)[j] - known[j];
    written[j] = error[j] * x->b;
  }
}

static inline void write_row(const row from, row to, const token *x, int i, const row written) {
  real keep = kept_of(x, i), w = x->w[i];
  EACH_COLUMN(j) to[j] = (DECAY ? from[j] * keep : from[j]) + written[j] * w;
}

static void read_text(const text *x, long n, long h, matrix S, real *y, real *kept) {
  for (long t = 0; t < x->time; t++) {
    token one = at(x, n, t, h);
    row error, written, out;
    if (kept && t % STEP == 0) memcpy(kept + t / STEP * K * V, S, sizeof(matrix));
    compare(S, &one, error, written);
    EACH_COLUMN(j) out[j] = (vec){0};
    EACH_ROW(i) {
      real keep = kept_of(&one, i), w = one.w[i], q = one.q[i];
      EACH_COLUMN(j) {
        vec after = (DECAY ? S[i][j] * keep : S[i][j]) + written[j] * w;
        S[i][j] = after;
        out[j] += after * q;
      }
    }
    memcpy(y + ((n * x->time + t) * x->heads + h) * V, out, sizeof(row));
  }
}

#define BAND (COLUMNS % 8 == 0 ? 8 : COLUMNS % 4 == 0 ? 4 : COLUMNS % 2 == 0 ? 2 : 1) /* columns whose sums stay in registers */
#define EACH_IN_BAND(j) _Pragma("GCC unroll 8") for (int j = 0; j < BAND; j++)

/* One token, of which nothing is kept: band by band from one state straight into the other, which may be the same. */
static void read_token(const text *x, long n, long h, const real *before, real *state, real *y) {
  token one = at(x, n, 0, h);
  for (int first = 0; first < V; first += BAND * LANES) {
    vec known[BAND], written[BAND], out[BAND];
    EACH_IN_BAND(j) known[j] = out[j] = (vec){0};
    if (COMPARE) EACH_ROW(i) {
      real p = BEFORE ? one.p[i] : one.p[i] * kept_of(&one, i);
      EACH_IN_BAND(j) known[j] += load(before + i * V + first + j * LANES) * p;
    }
    EACH_IN_BAND(j) written[j] = (load(one.v + first + j * LANES) - known[j]) * one.b;
    EACH_ROW(i) {
      real keep = kept_of(&one, i), w = one.w[i], q = one.q[i];
      EACH_IN_BAND(j) {
        vec S = load(before + i * V + first + j * LANES), after = (DECAY ? S * keep : S) + written[j] * w;
        store(state + i * V + first + j * LANES, after);
        out[j] += after * q;
      }
    }
    EACH_IN_BAND(j) store(y + (n * x->heads + h) * V + first + j * LANES, out[j]);
  }
}

/* before: the first state, which stays as it is unless both are one; state: the last one. */
void forward(const text *x, const real *before, real *state, real *y, real *kept, int threads) {
  long pieces = (x->time + STEP - 1) / STEP;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long n = 0; n < x->batch; n++)
    for (long h = 0; h < x->heads; h++) {
      long place = n * x->heads + h;
      if (x->time == 1 && !kept) {
        read_token(x, n, h, before + place * K * V, state + place * K * V, y);
        continue;
      }
      matrix S;
      memcpy(S, before + place * K * V, sizeof(matrix));
      read_text(x, n, h, S, y, kept ? kept + place * pieces * K * V : 0);
      memcpy(state + place * K * V, S, sizeof(matrix));
    }
}

/* Gradients, [batch, time, heads, ...] for every head by itself; dp and db may be NULL, and dw holds both where TIED. */
typedef struct {
  real *q, *p, *w, *v, *a, *b;
} gradients;

/* The first pass over a state backward: G takes in what y gives, and the written row its gradient. */
static inline void gather(matrix G, const token *x, const row dy, row dwritten) {
  EACH_COLUMN(j) dwritten[j] = (vec){0};
  for (int i = 0; i < K; i++)
    EACH_COLUMN(j) {
      G[i][j] += dy[j] * x->q[i];
      dwritten[j] += G[i][j] * x->w[i];
    }
}

/* Gradients of one row of the state, each still to be summed over its columns. */
typedef struct {
  vec q, p, w, a;
} partial;

static inline partial row_back(row g, const row S, real keep, real p, const row dy, const row written, const row derror) {
  partial d = {{0}, {0}, {0}, {0}};
  EACH_COLUMN(j) {
    vec before = S[j], after = DECAY ? before * keep : before, slope = g[j];
    d.q += after * dy[j];
    d.w += slope * written[j];
    if (COMPARE) d.p -= (BEFORE ? before : after) * derror[j];
    if (COMPARE && !BEFORE) slope -= derror[j] * p;
    if (DECAY) d.a += slope * after, slope *= keep;
    if (COMPARE && BEFORE) slope -= derror[j] * p;
    g[j] = slope;
  }
  return d;
}

/* One token backward: G is the gradient of the state after it on entry and of the state S before it on return. */
static inline void step_back(matrix G, matrix S, const token *x, const row error, const row dy, long place, const gradients *d) {
  row written, derror;
  vec reads = {0}, rates = {0}, forgets = {0};
  gather(G, x, dy, derror);
  EACH_COLUMN(j) {
    written[j] = error[j] * x->b;
    reads += written[j] * dy[j];
    rates += derror[j] * error[j];
    derror[j] *= x->b;
    store(d->v + place * V + j * LANES, derror[j]);
  }
  if (d->b) d->b[place] = sum(rates);
  real read = sum(reads);
  for (int first = 0; first < K; first += LANES) { /* sums of LANES rows at once */
    int count = K - first < LANES ? K - first : LANES;
    vec dq[LANES] = {{0}}, dp[LANES] = {{0}}, dw[LANES] = {{0}}, da[LANES] = {{0}};
    for (int r = 0; r < count; r++) {
      int i = first + r;
      partial one = row_back(G[i], S[i], kept_of(x, i), x->p[i], dy, written, derror);
      dq[r] = one.q + (vec){x->w[i] * read}; /* once, in the first column */
      dw[r] = TIED ? one.w + one.p : one.w;
      dp[r] = one.p;
      da[r] = one.a;
      forgets += one.a;
    }
    store_first(d->q + place * K + first, sums(dq), count);
    store_first(d->w + place * K + first, sums(dw), count);
    if (COMPARE && !TIED) store_first(d->p + place * K + first, sums(dp), count);
    if (DECAY == 2) store_first(d->a + place * K + first, sums(da), count);
  }
  if (DECAY == 1) d->a[place] = sum(forgets);
}

static void read_back(const text *x, long n, long h, matrix G, const real *kept, const real *dy, const gradients *d, matrix *S) {
  row errors[STEP], written;
  for (long piece = (x->time - 1) / STEP; piece >= 0; piece--) {
    long start = piece * STEP, stop = start + STEP < x->time ? start + STEP : x->time;
    memcpy(S[0], kept + piece * K * V, sizeof(matrix));
    for (long t = start; t < stop; t++) {
      token one = at(x, n, t, h);
      matrix *old = S + (t - start), *next = old + 1;
      compare(*old, &one, errors[t - start], written);
      for (int i = 0; i < K; i++) write_row((*old)[i], (*next)[i], &one, i, written);
    }
    for (long t = stop - 1; t >= start; t--) {
      token one = at(x, n, t, h);
      long place = (n * x->time + t) * x->heads + h;
      row slope;
      memcpy(slope, dy + place * V, sizeof(row));
      step_back(G, S[t - start], &one, errors[t - start], slope, place, d);
    }
  }
}

/* state: the gradient of the last state on entry, of the first on return; d->a is the gradient of log a. */
void backward(const text *x, const real *kept, const real *dy, real *state, const gradients *d, int threads) {
  long pieces = (x->time + STEP - 1) / STEP;
#pragma omp parallel num_threads(threads)
  {
    matrix *S = aligned_alloc(64, sizeof(matrix) * (STEP + 2) / 64 * 64 + 64), *G = S + STEP + 1;
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < x->heads; h++) {
        long place = n * x->heads + h;
        memcpy(*G, state + place * K * V, sizeof(matrix));
        read_back(x, n, h, *G, kept + place * pieces * K * V, dy, d, S);
        memcpy(state + place * K * V, *G, sizeof(matrix));
      }
    free(S);
  }
}
