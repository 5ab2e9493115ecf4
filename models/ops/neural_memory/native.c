/* Titans' memory, token by token, with its backward pass: a matrix, or layers of them with an activation between.

     z_l = kappa A_l^T a_{l-1},  a_0 = k, a_l = s(z_l)        e_L = v - z_L,  e_l = kappa A_{l+1} e_{l+1} o s'(z_l)
     S_l <- eta S_l + theta a_{l-1} e_l^T                     W_l <- keep W_l + S_l
     y_l = W_l^T h_{l-1},        h_0 = q, h_l = s(y_l)

   A is what W was at the last anchor, every `chunk` tokens; kappa is 1, or keep with DECAYED; EXCLUSIVE reads W before the write.

   REAL float or double   DEPTH layers   K, H, V width of keys, of hidden units, of values   LANES a divisor of H and V
   GATES 1, or DEPTH where each layer has its own          SILU 0 gelu, 1 silu

   Layouts: q, k [batch, time, heads, K]; v, y [.., V]; gates [.., GATES]; states [batch, heads, 2, SIZE]: all W, all S;
   traces [batch, time, heads, TRACE]: z_l, A_{l+1} e_{l+1} and y_l of the hidden layers, then e_L. */
#include "../native.h"
#include "deep/activation.h"

#ifndef STEP
#define STEP (DEPTH == 1 ? 32 : 16) /* tokens walked again from one kept state */
#endif
#define HIDDEN ((DEPTH - 1) * H)
#define SIZE (DEPTH == 1 ? K * V : K * H + (DEPTH - 2) * H * H + H * V)
#define TRACE (3 * HIDDEN + V)
#define IN(l) ((l) ? H : K)
#define OUT(l) ((l) == DEPTH - 1 ? V : H)
#define AT(l) ((l) ? K * H + ((l) - 1) * H * H : 0) /* layer l's weights among all */
#define OF(l, first, hidden) ((l) ? (hidden) + ((l) - 1) * H : (first)) /* layer l's input: the token's, or hidden units */
#define TO(l, hidden, last) ((l) == DEPTH - 1 ? (last) : (hidden) + (l) * H)
#define GATE(g, l) ((g)[GATES > 1 ? (l) : 0])
#define EACH_LAYER(l) _Pragma("GCC unroll 8") for (int l = 0; l < DEPTH; l++) /* unrolled, its widths are constants */
#define EACH_LAYER_BACK(l) _Pragma("GCC unroll 8") for (int l = DEPTH - 1; l >= 0; l--)
#define INLINE static inline __attribute__((always_inline))
/* Columns go in blocks whose sums stay in registers: `most` vectors at most. */
#define SIDE(out, most) ((out) / LANES % 4 == 0 && (most) == 4 ? 4 : (out) / LANES % 2 == 0 ? 2 : 1)
#define EACH_COLUMN(j) _Pragma("GCC unroll 4") for (int j = 0; j < side; j++)

/* y = scale M^T x */
INLINE void columns(const real *M, const real *x, real *y, real scale, int in, int out) {
  const int side = SIDE(out, 4);
  for (int c = 0; c < out; c += side * LANES) {
    vec even[4] = {{0}}, odd[4] = {{0}}; /* two sums, so that one need not wait for the other */
    for (int i = 0; i + 1 < in; i += 2) EACH_COLUMN(j) {
        even[j] += load(M + i * out + c + j * LANES) * x[i];
        odd[j] += load(M + (i + 1) * out + c + j * LANES) * x[i + 1];
      }
    if (in % 2) EACH_COLUMN(j) even[j] += load(M + (in - 1) * out + c + j * LANES) * x[in - 1];
    EACH_COLUMN(j) store(y + c + j * LANES, (even[j] + odd[j]) * scale);
  }
}

INLINE void sum_rows(const vec *part, real *y, int in) {
  int i = 0;
  for (; i + LANES <= in; i += LANES) {
    vec rows[LANES];
    memcpy(rows, part + i, sizeof rows);
    store(y + i, sums(rows));
  }
  for (; i < in; i++) y[i] = sum(part[i]);
}

/* y = M x */
INLINE void rows(const real *M, const real *x, real *y, int in, int out) {
  vec part[in];
  for (int i = 0; i < in; i++) {
    part[i] = load(M + i * out) * load(x);
    for (int c = LANES; c < out; c += LANES) part[i] += load(M + i * out + c) * load(x + c);
  }
  sum_rows(part, y, in);
}

typedef struct {
  long batch, time, heads, chunk, last; /* last: the token before which the state that is handed out stands, an anchor */
  const real *q, *k, *v, *momentum, *rate, *keep;
} text;

typedef struct {
  const real *q, *k, *v, *momentum, *rate, *keep;
} token;

static inline token at(const text *x, long place) {
  long gate = place * GATES;
  return (token){x->q + place * K, x->k + place * K, x->v + place * V, x->momentum + gate, x->rate + gate, x->keep + gate};
}

static inline real kappa(const token *x, int l) { return DECAYED ? GATE(x->keep, l) : 1; }

/* What a token's key makes of the hidden layers, given its trace: values and errors, and the activation's derivatives. */
typedef struct {
  real value[HIDDEN + 1], error[HIDDEN + 1], slope[HIDDEN + 1], bend[HIDDEN + 1];
} hidden;

static inline void hear(const token *x, const real *trace, hidden *own, int l) { /* hidden layer l */
  for (int j = l * H; j < (l + 1) * H; j += LANES) {
    activated s = activation(load(trace + j));
    store(own->value + j, s.value), store(own->slope + j, s.slope), store(own->bend + j, s.bend);
  }
}

static inline void blame(const token *x, const real *trace, hidden *own, int l) {
  for (int j = l * H; j < (l + 1) * H; j += LANES)
    store(own->error + j, load(trace + HIDDEN + j) * load(own->slope + j) * kappa(x, l + 1));
}

/* The token's key through the anchored weights A and its error back: fills the trace but for its reads. */
INLINE void compare(const real *A, const token *x, real *trace, hidden *own) {
  real *error = trace + 3 * HIDDEN;
  EACH_LAYER(l) {
    columns(A + AT(l), OF(l, x->k, own->value), TO(l, trace, error), kappa(x, l), IN(l), OUT(l));
    if (l < DEPTH - 1) hear(x, trace, own, l);
  }
  for (int j = 0; j < V; j += LANES) store(error + j, load(x->v + j) - load(error + j));
  EACH_LAYER_BACK(l) if (l) {
    rows(A + AT(l), TO(l, own->error, error), trace + HIDDEN + (l - 1) * H, IN(l), OUT(l));
    blame(x, trace, own, l - 1);
  }
}

/* One layer written and read: W, S to `to`, y = W^T h. */
INLINE void write_and_read(real *W, real *S, const real *a, const real *e, real eta, real theta, real keep, const real *h, real *y,
                           int in, int out) {
  const int side = SIDE(out, 4);
  for (int c = 0; c < out; c += side * LANES) {
    vec error[4], sum[4] = {{0}};
    EACH_COLUMN(j) error[j] = load(e + c + j * LANES) * theta;
    for (int i = 0; i < in; i++) EACH_COLUMN(j) {
        real *w = W + i * out + c + j * LANES, *s = S + i * out + c + j * LANES;
        vec before = load(w), surprise = load(s) * eta + error[j] * a[i], after = before * keep + surprise;
        sum[j] += (EXCLUSIVE ? before : after) * h[i];
        store(s, surprise), store(w, after);
      }
    EACH_COLUMN(j) store(y + c + j * LANES, sum[j]);
  }
}

/* A text in pieces of STEP tokens or less, each walked again from a kept state; none has an anchor inside but at whole chunks. */
typedef struct {
  long step, span, each; /* `each` pieces of `step` tokens in every `span` */
} cuts;

static inline cuts cuts_of(long chunk) {
  if (chunk >= STEP) return (cuts){STEP, chunk, (chunk + STEP - 1) / STEP};
  return (cuts){STEP / chunk * chunk, STEP / chunk * chunk, 1};
}

static inline long start_of(cuts c, long piece) { return piece / c.each * c.span + piece % c.each * c.step; }

long pieces(long time, long chunk) {
  cuts c = cuts_of(chunk);
  return time / c.span * c.each + (time % c.span + c.step - 1) / c.step;
}

static void read_text(const text *x, long n, long h, real *state, real *A, real *y, real *traces, real *kept, real *end) {
  real here[TRACE], read[HIDDEN + 1];
  hidden own;
  cuts c = cuts_of(x->chunk);
  for (long t = 0, piece = 0; t < x->time; t++) {
    long place = (n * x->time + t) * x->heads + h;
    token one = at(x, place);
    real *trace = traces ? traces + place * TRACE : here, *heard = trace + 2 * HIDDEN;
    if (kept && t == start_of(c, piece)) memcpy(kept + piece++ * 2 * SIZE, state, 2 * SIZE * sizeof(real));
    if (t == x->last) memcpy(end, state, 2 * SIZE * sizeof(real));
    if (x->chunk > 1 && t % x->chunk == 0) memcpy(A, state, SIZE * sizeof(real));
    compare(x->chunk > 1 ? A : state, &one, trace, &own);
    EACH_LAYER(l) {
      write_and_read(state + AT(l), state + SIZE + AT(l), OF(l, one.k, own.value), TO(l, own.error, trace + 3 * HIDDEN),
                     GATE(one.momentum, l), GATE(one.rate, l), GATE(one.keep, l), OF(l, one.q, read), TO(l, heard, y + place * V),
                     IN(l), OUT(l));
      if (l < DEPTH - 1)
        for (int j = l * H; j < (l + 1) * H; j += LANES) store(read + j, activation(load(heard + j)).value);
    }
  }
  if (x->last == x->time) memcpy(end, state, 2 * SIZE * sizeof(real));
}

/* A token of one head: compared with A, written into `state`, read into y. */
static void pass(const token *x, const real *A, real *state, real *y) {
  real trace[TRACE], read[HIDDEN + 1], *heard = trace + 2 * HIDDEN;
  hidden own;
  compare(A, x, trace, &own);
  EACH_LAYER(l) {
    write_and_read(state + AT(l), state + SIZE + AT(l), OF(l, x->k, own.value), TO(l, own.error, trace + 3 * HIDDEN),
                   GATE(x->momentum, l), GATE(x->rate, l), GATE(x->keep, l), OF(l, x->q, read), TO(l, heard, y), IN(l), OUT(l));
    if (l < DEPTH - 1)
      for (int j = 0; j < H; j += LANES) store(read + l * H + j, activation(load(heard + l * H + j)).value);
  }
}

/* Rows of `count` numbers of `past` tokens and of a new one behind them, for each of `batch`. */
static void append(const real *old, const real *new, real *to, long batch, long past, long count) {
  for (long n = 0; n < batch; n++, to += (past + 1) * count) {
    memcpy(to, old + n * past * count, past * count * sizeof(real));
    memcpy(to + past * count, new + n * count, count * sizeof(real));
  }
}

typedef struct {
  real *k, *v, *momentum, *rate, *keep;
} tokens;

/* One token, `x`, after those of the open chunk, `old`, which are passed again from their anchor's weights and surprise: each
   layer's lie for themselves, [batch, heads, in, out], and stay as they are. Where the chunk is full, those at its end are
   written to `ends`; else the chunk's tokens, with the new one, to `opened`. */
void step(const text *x, const text *old, const real **weights, const real **surprise, real **ends, const tokens *opened, real *y,
          int threads) {
  const real none[K] = {0};
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (threads > 1 && x->batch > 1)
  for (long n = 0; n < x->batch; n++)
    for (long h = 0; h < x->heads; h++) {
      real state[2 * SIZE], A[SIZE], unread[V];
      long head = n * x->heads + h;
      EACH_LAYER(l) {
        long size = IN(l) * OUT(l);
        memcpy(state + AT(l), weights[l] + head * size, size * sizeof(real));
        memcpy(state + SIZE + AT(l), surprise[l] + head * size, size * sizeof(real));
      }
      memcpy(A, state, sizeof A);
      for (long t = 0; t < old->time; t++) {
        token one = at(old, (n * old->time + t) * x->heads + h);
        one.q = none;
        pass(&one, A, state, unread);
      }
      token one = at(x, head);
      pass(&one, A, state, y + head * V);
      EACH_LAYER(l) if (ends) {
        long size = IN(l) * OUT(l);
        memcpy(ends[l] + head * size, state + AT(l), size * sizeof(real));
        memcpy(ends[DEPTH + l] + head * size, state + SIZE + AT(l), size * sizeof(real));
      }
    }
  if (ends) return;
  append(old->k, x->k, opened->k, x->batch, old->time, x->heads * K);
  append(old->v, x->v, opened->v, x->batch, old->time, x->heads * V);
  append(old->momentum, x->momentum, opened->momentum, x->batch, old->time, x->heads * GATES);
  append(old->rate, x->rate, opened->rate, x->batch, old->time, x->heads * GATES);
  append(old->keep, x->keep, opened->keep, x->batch, old->time, x->heads * GATES);
}

/* One layer written again, from one state to the next, and what its read gives, W dy: `part` gets it, to be summed along rows.
   A state's S lies `far` behind its W. */
INLINE void write_again(const real *from, real *to, long far, const real *a, const real *e, real eta, real theta, real keep,
                        const real *dy, vec *part, int in, int out) {
  const int side = SIDE(out, 4);
  for (int c = 0; c < out; c += side * LANES) {
    vec error[4], slope[4];
    EACH_COLUMN(j) error[j] = load(e + c + j * LANES) * theta, slope[j] = load(dy + c + j * LANES);
    for (int i = 0; i < in; i++) {
      vec sum = part[i];
      EACH_COLUMN(j) {
        long place = i * out + c + j * LANES;
        vec before = load(from + place), surprise = load(from + far + place) * eta + error[j] * a[i];
        vec after = before * keep + surprise;
        sum += (EXCLUSIVE ? before : after) * slope[j];
        store(to + far + place, surprise), store(to + place, after);
      }
      part[i] = sum;
    }
  }
}

/* What reads of a token's hidden layers gave, and their gradients. */
typedef struct {
  real value[HIDDEN + 1], slope[HIDDEN + 1];
} hearing;

static void walk_again(const token *x, const real *trace, const real *from, real *to, const real *dy, hidden *own, hearing *read,
                       real *dq) {
  EACH_LAYER(l) if (l < DEPTH - 1) hear(x, trace, own, l), blame(x, trace, own, l);
  for (int j = 0; j < HIDDEN; j += LANES) {
    activated s = activation(load(trace + 2 * HIDDEN + j));
    store(read->value + j, s.value), store(read->slope + j, s.slope);
  }
  EACH_LAYER_BACK(l) {
    vec part[IN(l)];
    real dh[IN(l)];
    memset(part, 0, sizeof part);
    write_again(from + AT(l), to + AT(l), SIZE, OF(l, x->k, own->value), TO(l, own->error, trace + 3 * HIDDEN), GATE(x->momentum, l),
                GATE(x->rate, l), GATE(x->keep, l), TO(l, read->slope, dy), part, IN(l), OUT(l));
    sum_rows(part, l ? dh : dq, IN(l));
    if (l)
      for (int j = 0; j < H; j += LANES) {
        real *slope = read->slope + (l - 1) * H + j; /* of the activation, and now of y */
        store(slope, load(slope) * load(dh + j));
      }
  }
}

typedef struct {
  real *q, *k, *v, *momentum, *rate, *keep;
} gradients;

/* What a token's write gives its gates, still to be summed. */
typedef struct {
  vec etas[2], thetas, keeps[2];
} gating;

/* Back over one layer's read and write: G is the gradient of W and S after the token on entry, of those before it on return. S lies
   `far` behind W; `part` gets what the key is given, by rows, but for theta; `rates`, if there is any,
   what `thetas` would add up. */
INLINE void write_back(real *G, const real *before, long far, const real *a, const real *e, real eta, real theta, real keep,
                       const real *h, const real *dy, vec *part, real *de, gating *gates, vec *rates,
                       int in, int out) {
  const int side = SIDE(out, 2);
  gating own = *gates; /* in registers */
  for (int c = 0; c < out; c += side * LANES) {
    vec error[2], slope[2], sum[2] = {{0}};
    EACH_COLUMN(j) error[j] = load(e + c + j * LANES), slope[j] = load(dy + c + j * LANES);
    for (int i = 0; i < in; i++) {
      vec row = part[i];
      EACH_COLUMN(j) {
        long place = i * out + c + j * LANES;
        vec w = load(G + place), s;
        if (!EXCLUSIVE) w += slope[j] * h[i];
        s = load(G + far + place) + w;
        sum[j] += s * a[i];
        row += s * error[j];
        own.etas[j] += s * load(before + far + place);
        own.keeps[j] += w * load(before + place);
        w *= keep;
        if (EXCLUSIVE) w += slope[j] * h[i];
        store(G + place, w), store(G + far + place, s * eta);
      }
      part[i] = row;
    }
    EACH_COLUMN(j) {
      if (rates) rates[c / LANES + j] = sum[j] * error[j];
      else own.thetas += sum[j] * error[j];
      store(de + c + j * LANES, sum[j] * theta);
    }
  }
  *gates = own;
}

INLINE void gates_back(const gating *own, real *momentum, real *rate, real *keep) {
  *momentum += sum(own->etas[0] + own->etas[1]), *rate += sum(own->thetas), *keep += sum(own->keeps[0] + own->keeps[1]);
}

/* The key's own gradient of what `write_back` made. */
INLINE void key_back(const vec *part, real theta, real *da, int in) {
  sum_rows(part, da, in);
  for (int i = 0; i < in; i++) da[i] *= theta;
}

/* Back over z = scale A^T a, and u = A e if there is `du`: GA += scale a dz^T + du e^T, and A dz, which `part` gets. */
INLINE void anchor_back(real *GA, const real *A, const real *a, real scale, const real *dz, const real *du, const real *e, vec *part,
                        int in, int out) {
  const int side = SIDE(out, 2);
  for (int c = 0; c < out; c += side * LANES) {
    vec slope[2], error[2];
    EACH_COLUMN(j) slope[j] = load(dz + c + j * LANES), error[j] = du ? load(e + c + j * LANES) : (vec){0};
    for (int i = 0; i < in; i++) {
      vec row = part[i];
      real key = a[i] * scale;
      EACH_COLUMN(j) {
        long place = i * out + c + j * LANES;
        vec g = load(GA + place) + slope[j] * key;
        row += load(A + place) * slope[j];
        store(GA + place, du ? g + error[j] * du[i] : g);
      }
      part[i] = row;
    }
  }
}

/* Back over `compare`: de and da hold what the writes gave to errors and values; du, dz are the slopes of u and of z. */
INLINE void compare_back(real *GA, const real *A, const token *x, const real *trace, const hidden *own, real *de, real *dlast,
                         real *da, real *dk, real *keeps) {
  real du[HIDDEN + 1], dz[HIDDEN + 1], more[H > V ? H : V];
  const real *error = trace + 3 * HIDDEN, *u = trace + HIDDEN;
  EACH_LAYER(l) {
    real *own_de = TO(l, de, dlast);
    if (l) {
      columns(A + AT(l), OF(l, du, du), more, 1, IN(l), OUT(l));
      for (int j = 0; j < OUT(l); j += LANES) store(own_de + j, load(own_de + j) + load(more + j));
    }
    if (l == DEPTH - 1) break;
    vec decays = {0};
    real decay = kappa(x, l + 1);
    for (int j = l * H; j < (l + 1) * H; j += LANES) {
      vec slope = load(de + j) * load(own->slope + j);
      store(dz + j, load(de + j) * load(u + j) * load(own->bend + j) * decay);
      store(du + j, slope * decay);
      decays += slope * load(u + j);
    }
    if (DECAYED) GATE(keeps, l + 1) += sum(decays);
  }
  real down[V];
  for (int j = 0; j < V; j += LANES) store(down + j, -load(dlast + j));
  EACH_LAYER_BACK(l) {
    vec part[IN(l)];
    real r[IN(l)], *to = OF(l, dk, da), decay = kappa(x, l);
    memset(part, 0, sizeof part);
    const real *a = OF(l, x->k, own->value), *raised = l ? OF(l, du, du) : 0;
    anchor_back(GA + AT(l), A + AT(l), a, decay, TO(l, dz, down), raised, TO(l, own->error, error), part, IN(l), OUT(l));
    sum_rows(part, r, IN(l));
    for (int i = 0; i < IN(l); i++) to[i] += decay * r[i];
    if (DECAYED)
      for (int i = 0; i < IN(l); i++) GATE(keeps, l) += a[i] * r[i];
    if (l)
      for (int j = (l - 1) * H; j < l * H; j += LANES) store(dz + j, load(dz + j) + load(da + j) * load(own->slope + j));
  }
}

/* What one thread has of a head: the states of a piece, the gradients of W, S and of the anchored W, and of each token its layers. */
typedef struct {
  real state[STEP + 1][2 * SIZE], G[2 * SIZE], GA[SIZE];
  hidden own[STEP];
  hearing read[STEP];
} desk;

static void token_back(const text *x, long t, long place, desk *own, long i, const real *A, const real *trace, const real *dy,
                       const gradients *d) {
  token one = at(x, place);
  hidden *net = own->own + i;
  hearing *read = own->read + i;
  real da[HIDDEN + 1], de[HIDDEN + 1], *dk = d->k + place * K, *dv = d->v + place * V, *keeps = d->keep + place * GATES;
  for (int g = 0; g < GATES; g++) d->momentum[place * GATES + g] = d->rate[place * GATES + g] = keeps[g] = 0;
  EACH_LAYER(l) {
    vec part[IN(l)];
    gating gates = {{{0}}};
    memset(part, 0, sizeof part);
    write_back(own->G + AT(l), own->state[i] + AT(l), SIZE, OF(l, one.k, net->value), TO(l, net->error, trace + 3 * HIDDEN),
               GATE(one.momentum, l), GATE(one.rate, l), GATE(one.keep, l), OF(l, one.q, read->value), TO(l, read->slope, dy), part,
               TO(l, de, dv), &gates, 0, IN(l), OUT(l));
    key_back(part, GATE(one.rate, l), OF(l, dk, da), IN(l));
    gates_back(&gates, &GATE(d->momentum + place * GATES, l), &GATE(d->rate + place * GATES, l), &GATE(keeps, l));
  }
  compare_back(x->chunk > 1 ? own->GA : own->G, A, &one, trace, net, de, dv, da, dk, keeps);
  if (x->chunk > 1 && t % x->chunk == 0) {
    for (long j = 0; j < SIZE; j++) own->G[j] += own->GA[j];
    memset(own->GA, 0, sizeof own->GA);
  }
}

static void read_back(const text *x, long n, long h, desk *own, const real *traces, const real *kept, const real *dy,
                      const real *dend, const gradients *d) {
  cuts c = cuts_of(x->chunk);
  long stop = x->time;
  for (long piece = pieces(x->time, x->chunk) - 1; piece >= 0; piece--) {
    long start = start_of(c, piece);
    memcpy(own->state[0], kept + piece * 2 * SIZE, sizeof own->state[0]);
    for (long t = start; t < stop; t++) {
      long place = (n * x->time + t) * x->heads + h, i = t - start;
      token one = at(x, place);
      walk_again(&one, traces + place * TRACE, own->state[i], own->state[i + 1], dy + place * V, own->own + i, own->read + i,
                 d->q + place * K);
    }
    for (long t = stop - 1; t >= start; t--) {
      long place = (n * x->time + t) * x->heads + h, i = t - start;
      const real *A = c.each > 1 ? kept + piece / c.each * c.each * 2 * SIZE : own->state[i / x->chunk * x->chunk];
      if (t + 1 == x->last)
        for (long j = 0; j < 2 * SIZE; j++) own->G[j] += dend[j];
      token_back(x, t, place, own, i, A, traces + place * TRACE, dy + place * V, d);
    }
    stop = start;
  }
}

#if DEPTH == 1
#include "native.h"
#else
typedef desk work;

static void read_head(const text *x, long n, long h, real *y, real *traces, real *kept, real *state) {
  real *own = malloc(3 * SIZE * sizeof(real));
  memcpy(own, state, 2 * SIZE * sizeof(real));
  read_text(x, n, h, own, own + 2 * SIZE, y, traces, kept, state);
  free(own);
}

static void head_back(const text *x, long n, long h, work *own, const real *traces, const real *kept, const real *dy, real *change,
                      const gradients *d) {
  memset(own->G, 0, sizeof own->G), memset(own->GA, 0, sizeof own->GA);
  read_back(x, n, h, own, traces, kept, dy, change, d);
  for (long j = 0; j < 2 * SIZE; j++) change[j] = own->G[j] + (x->last ? 0 : change[j]);
}
#endif

/* state: the first one on entry, that before token `last` on return; traces and kept may be NULL. */
void forward(const text *x, real *state, real *y, real *traces, real *kept, int threads) {
  long count = pieces(x->time, x->chunk);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long n = 0; n < x->batch; n++)
    for (long h = 0; h < x->heads; h++) {
      long head = n * x->heads + h;
      read_head(x, n, h, y, traces, kept ? kept + head * count * 2 * SIZE : 0, state + head * 2 * SIZE);
    }
}

/* change: the gradient of the state that was handed out on entry, of the first one on return. */
void backward(const text *x, const real *traces, const real *kept, const real *dy, real *change, const gradients *d, int threads) {
  long count = pieces(x->time, x->chunk);
#pragma omp parallel num_threads(threads)
  {
    work *own = aligned_alloc(64, (sizeof(work) + 63) / 64 * 64);
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < x->heads; h++) {
        long head = n * x->heads + h;
        head_back(x, n, h, own, traces, kept + head * count * 2 * SIZE, dy, change + head * 2 * SIZE, d);
      }
    free(own);
  }
}
