/* Recurrent cells, token by token, with their backward pass; the laws are those of `recurrence.py`.

   REAL float or double   K units a head   LANES a divisor of K   CELL one of those below   SIDE vectors a panel: 1 or 2
   Layouts, d = heads K: x, gates and their gradients [batch, time, GATES, d]; y [batch, time, d]; states [batch, STATES, d], the
   output first; kept [batch, time, KEPT, d]; a head's recurrent matrix in panels [out / (SIDE LANES), in, SIDE LANES], K to
   GATES K forward, GATES K to K backward. Up to 4 rows of the batch go together: each reads the weights once for all. */
#include "../native.h"

#define LSTM 0
#define GRU 1
#define JANET 2
#define SLSTM 3
#define GATES (CELL == GRU ? 3 : CELL == JANET ? 2 : 4)
#define STATES (CELL == SLSTM ? 4 : CELL == LSTM ? 2 : 1) /* h; c; n; m */
#define KEPT (CELL == SLSTM ? 3 : 1) /* LSTM c, GRU R_n h + b, JANET the share written, sLSTM c, n and sigmoid(-f) */
#define INLINE static inline __attribute__((always_inline))
#define PANEL (SIDE * LANES)

typedef struct {
  long batch, time, heads;
  const real *inner; /* the GRU's b_n [d], or NULL */
} text;

/* to[r] = M^T from[r] for each of `rows` rows, M [in, out] in panels. */
INLINE void product(const real *M, int rows, int in, int out, const real *from, real *to) {
  for (int c = 0; c < out; c += PANEL, M += in * PANEL) {
    vec sum[4][SIDE] = {{{0}}};
    for (int i = 0; i < in; i++)
      for (int j = 0; j < SIDE; j++) {
        vec weight = load(M + i * PANEL + j * LANES);
        for (int r = 0; r < rows; r++) sum[r][j] += weight * from[r * in + i];
      }
    for (int r = 0; r < rows; r++)
      for (int j = 0; j < SIDE; j++) store(to + r * out + c + j * LANES, sum[r][j]);
  }
}

/* One token of LANES units: `heard` is R h, K apart from gate to gate; x and what is kept are d apart. */
INLINE void step(const real *x, const real *heard, const real *inner, long d, vec now[STATES], real *gates, real *kept) {
  vec sum[GATES], g[GATES];
  for (int i = 0; i < GATES; i++) sum[i] = load(x + i * d) + load(heard + i * K);
  if (CELL == LSTM) {
    g[0] = sigmoid(sum[0]), g[1] = sigmoid(sum[1]), g[2] = tanh_of(sum[2]), g[3] = sigmoid(sum[3]);
    now[1] = g[1] * now[1] + g[0] * g[2];
    now[0] = g[3] * tanh_of(now[1]);
    if (kept) store(kept, now[1]);
  }
  if (CELL == GRU) {
    vec through = load(heard + 2 * K) + (inner ? load(inner) : (vec){0});
    g[0] = sigmoid(sum[0]), g[1] = sigmoid(sum[1]), g[2] = tanh_of(load(x + 2 * d) + g[0] * through);
    now[0] = g[2] + g[1] * (now[0] - g[2]);
    if (kept) store(kept, through);
  }
  if (CELL == JANET) {
    vec write = sigmoid(1 - sum[0]);
    g[0] = sigmoid(sum[0]), g[1] = tanh_of(sum[1]);
    now[0] = g[0] * now[0] + write * g[1];
    if (kept) store(kept, write);
  }
  if (CELL == SLSTM) {
    vec f = sum[1], fall = sigmoid(-f), forget = choose(f < 0, f, (vec){0});
    forget += now[3] - log_of_one_and(exp_of_negative(choose(f < 0, f, -f)));
    vec most = choose(forget < sum[0], sum[0], forget);
    g[0] = exp_of_negative(sum[0] - most), g[1] = exp_of_negative(forget - most), g[2] = tanh_of(sum[2]), g[3] = sigmoid(sum[3]);
    now[1] = g[1] * now[1] + g[0] * g[2];
    now[2] = g[1] * now[2] + g[0];
    now[3] = most;
    now[0] = g[3] * now[1] / now[2];
    if (kept) store(kept, now[1]), store(kept + d, now[2]), store(kept + 2 * d, fall);
  }
  if (gates)
    for (int i = 0; i < GATES; i++) store(gates + i * d, g[i]);
}

INLINE void read_rows(const text *in, long n, int rows, long h, const real *x, const real *R, real *state, real *y, real *gates,
                      real *kept) {
  long d = in->heads * K, first = h * K;
  real now[4 * K], heard[4 * GATES * K]; /* the outputs, and R of them */
  for (int r = 0; r < rows; r++) memcpy(now + r * K, state + (n + r) * STATES * d + first, K * sizeof(real));
  for (long t = 0; t < in->time; t++) {
    product(R, rows, K, GATES * K, now, heard);
    for (int r = 0; r < rows; r++)
      for (long j = 0; j < K; j += LANES) {
        long token = (n + r) * in->time + t, c = first + j;
        real *own = state + (n + r) * STATES * d + c;
        vec held[STATES];
        for (int i = 0; i < STATES; i++) held[i] = load(own + i * d);
        step(x + token * GATES * d + c, heard + r * GATES * K + j, in->inner ? in->inner + c : 0, d, held,
             gates ? gates + token * GATES * d + c : 0, kept ? kept + token * KEPT * d + c : 0);
        for (int i = 0; i < STATES; i++) store(own + i * d, held[i]);
        store(now + r * K + j, held[0]);
        store(y + token * d + c, held[0]);
      }
  }
}

/* Rows of the batch in groups of 4, or fewer where the threads would go short; which group a row is in changes no digit. */
static inline long group_of(const text *in, int threads) {
  long share = in->batch * in->heads / threads;
  return share >= 4 ? 4 : share >= 2 ? 2 : 1;
}

static inline long end_of(const text *in, long begin, long group) { return begin + group < in->batch ? begin + group : in->batch; }

/* R [heads, ..] in panels K to GATES K; state: the first one on entry, the last one on return; gates and kept may be NULL. */
void forward(const text *in, const real *x, const real *R, real *state, real *y, real *gates, real *kept, int threads) {
  long group = group_of(in, threads);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long h = 0; h < in->heads; h++)
    for (long begin = 0; begin < in->batch; begin += group) {
      const real *M = R + h * GATES * K * K;
      long stop = end_of(in, begin, group), n = begin;
      for (; n + 4 <= stop; n += 4) read_rows(in, n, 4, h, x, M, state, y, gates, kept);
      for (; n + 2 <= stop; n += 2) read_rows(in, n, 2, h, x, M, state, y, gates, kept);
      for (; n < stop; n++) read_rows(in, n, 1, h, x, M, state, y, gates, kept);
    }
}

/* Back over one token: d holds the gradients of its states on entry, of those before it on return but for what goes through R.
   slope is that of the sums R h + x, gate by gate. */
INLINE void step_back(vec d[STATES], const real *gates, const real *kept, const vec before[STATES], vec y, long wide,
                      vec slope[GATES]) {
  vec g[GATES], dh = d[0], one = all(1);
  for (int i = 0; i < GATES; i++) g[i] = load(gates + i * wide);
  if (CELL == LSTM) {
    vec bent = tanh_of(load(kept)), dc = d[1] + dh * g[3] * (1 - bent * bent);
    slope[0] = dc * g[2] * g[0] * (1 - g[0]);
    slope[1] = dc * before[1] * g[1] * (1 - g[1]);
    slope[2] = dc * g[0] * (1 - g[2] * g[2]);
    slope[3] = dh * bent * g[3] * (1 - g[3]);
    d[0] = (vec){0}, d[1] = dc * g[1];
  }
  if (CELL == GRU) {
    slope[2] = dh * (1 - g[1]) * (1 - g[2] * g[2]);
    slope[0] = slope[2] * load(kept) * g[0] * (1 - g[0]);
    slope[1] = dh * (before[0] - g[2]) * g[1] * (1 - g[1]);
    d[0] = dh * g[1];
  }
  if (CELL == JANET) {
    vec write = load(kept);
    slope[0] = dh * (before[0] * g[0] * (1 - g[0]) - g[1] * write * (1 - write));
    slope[1] = dh * write * (1 - g[1] * g[1]);
    d[0] = dh * g[0];
  }
  if (CELL == SLSTM) {
    vec share = one / load(kept + wide), dc = d[1] + dh * g[3] * share, dn = d[2] - dh * y * share;
    slope[0] = (dc * g[2] + dn) * g[0];
    slope[1] = (dc * before[1] + dn * before[2]) * g[1] * load(kept + 2 * wide);
    slope[2] = dc * g[0] * (1 - g[2] * g[2]);
    slope[3] = dh * load(kept) * share * g[3] * (1 - g[3]);
    d[0] = (vec){0}, d[1] = dc * g[1], d[2] = dn * g[1];
  }
}

typedef struct {
  const real *R, *first, *y, *gates, *kept, *dy; /* first: the states before the text */
} past;

/* What a state was before token t: its first value, the output before, or what was kept of c and n. */
INLINE vec state_before(const past *p, int i, long t, long token, long row, long d, long c) {
  if (!t) return load(p->first + (row * STATES + i) * d + c);
  return i ? load(p->kept + ((token - 1) * KEPT + i - 1) * d + c) : load(p->y + (token - 1) * d + c);
}

INLINE void rows_back(const text *in, long n, int rows, long h, const past *p, real *state, real *dx) {
  long d = in->heads * K, first = h * K;
  real through[4 * K], slopes[4 * GATES * K];
  memset(through, 0, sizeof through);
  for (long t = in->time - 1; t >= 0; t--) {
    for (int r = 0; r < rows; r++)
      for (long j = 0; j < K; j += LANES) {
        long token = (n + r) * in->time + t, c = first + j;
        real *own = state + (n + r) * STATES * d + c;
        vec held[STATES], before[STATES], slope[GATES];
        for (int i = 0; i < STATES; i++) held[i] = load(own + i * d);
        for (int i = 0; i < (STATES < 3 ? STATES : 3); i++) before[i] = state_before(p, i, t, token, n + r, d, c);
        held[0] += load(p->dy + token * d + c) + load(through + r * K + j);
        step_back(held, p->gates + token * GATES * d + c, p->kept + token * KEPT * d + c, before, load(p->y + token * d + c), d, slope);
        for (int i = 0; i < STATES; i++) store(own + i * d, held[i]);
        for (int i = 0; i < GATES; i++) {
          store(dx + token * GATES * d + i * d + c, slope[i]);
          if (CELL == GRU && i == 2) slope[i] *= load(p->gates + token * GATES * d + c);
          store(slopes + r * GATES * K + i * K + j, slope[i]);
        }
      }
    product(p->R + h * GATES * K * K, rows, GATES * K, K, slopes, through);
  }
  for (int r = 0; r < rows; r++)
    for (long j = 0; j < K; j += LANES) {
      real *own = state + (n + r) * STATES * d + first + j;
      store(own, load(own) + load(through + r * K + j));
    }
}

/* R in panels GATES K to K; state: the gradient of the last one on entry, of the first on return. */
void backward(const text *in, const past *p, real *state, real *dx, int threads) {
  long group = group_of(in, threads);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long h = 0; h < in->heads; h++)
    for (long begin = 0; begin < in->batch; begin += group) {
      long stop = end_of(in, begin, group), n = begin;
      for (; n + 4 <= stop; n += 4) rows_back(in, n, 4, h, p, state, dx);
      for (; n + 2 <= stop; n += 2) rows_back(in, n, 2, h, p, state, dx);
      for (; n < stop; n++) rows_back(in, n, 1, h, p, state, dx);
    }
}
