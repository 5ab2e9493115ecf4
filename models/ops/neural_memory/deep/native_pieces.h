/* What a piece of tokens makes of the layers of a memory, and how it is read and written: the forward pass of `native_pieces.c`, which
   says the formulas, layouts and macros. */
#include "../../native.h"
#include "../../tiles.h"
#include "activation.h"

#define HIDDEN ((DEPTH - 1) * H)
#define SIZE (DEPTH == 1 ? K * V : K * H + (DEPTH - 2) * H * H + H * V)
#define TRACE (3 * HIDDEN + V)
#define IN(l) ((l) ? H : K)
#define OUT(l) ((l) == DEPTH - 1 ? V : H)
#define AT(l) ((l) ? K * H + ((l) - 1) * H * H : 0)
#define GATE(l) (GATES > 1 ? (l) : 0)
#define MORE(x, y) ((x) > (y) ? (x) : (y))
#define WIDE MORE(MORE(K, H), MORE(V, PIECE))
typedef real rows[PIECE * WIDE];        /* a row for each token of a piece, zeros behind the last one */
typedef real square[PIECE * PIECE];     /* a row for each token, a number for each token before it */

typedef struct {
  long batch, time, heads, chunk, last;
  const real *q, *k, *v, *momentum, *rate, *keep;
} text;

typedef struct {
  real *q, *k, *v, *momentum, *rate, *keep;
} gradients;

/* After each token of a piece: what is left of W (c), of S in W (m) and in S (p), and of each write in W (T) and in S (s). */
typedef struct {
  real c[PIECE], m[PIECE], p[PIECE];
  square T, s;
} shares;

/* What one thread has of a piece. a, e: what layers are given by keys, and their errors; h: what they are given by reads. */
typedef struct {
  long count;
  shares left[GATES];
  rows a[DEPTH], e[DEPTH], h[DEPTH], slope[DEPTH], bend[DEPTH], heard[DEPTH]; /* of the activations before a layer; heard: of h */
  rows da[DEPTH], de[DEPTH], dy, dh, one, other, turned, result;
  square scores, slopes, near;
  const real *A, *state; /* before the piece */
  real traced[PIECE * TRACE]; /* the trace where nobody keeps it */
  real *GA, G[2 * SIZE], apart[2 * SIZE]; /* apart: in reading the state, in going back GA where the anchor stands before other pieces */
} desk;

/* Pieces: `each` of `step` tokens in every `span`, an anchor at the first; with NEAR whole chunks, and what is open by itself. */
typedef struct {
  long step, span, each;
} cuts;

static cuts cuts_of(long chunk) {
  if (NEAR) return (cuts){PIECE / chunk * chunk, PIECE / chunk * chunk, 1};
  long step = chunk < PIECE ? chunk : PIECE;
  return (cuts){step, chunk, (chunk + step - 1) / step};
}

/* How many tokens whole chunks have. */
static long full_of(long time, long chunk) { return time / chunk * chunk; }

long pieces(long time, long chunk) {
  cuts c = cuts_of(chunk);
  if (NEAR) return (full_of(time, chunk) + c.step - 1) / c.step + (time > full_of(time, chunk));
  return time / c.span * c.each + (time % c.span + c.step - 1) / c.step;
}

static long start_of(cuts c, long piece, long time, long chunk) {
  long start = piece / c.each * c.span + piece % c.each * c.step, full = full_of(time, chunk);
  return NEAR && start > full ? full : start;
}

static long stop_of(cuts c, long piece, long time, long chunk) {
  long start = start_of(c, piece, time, chunk), stop = start + c.step, next = (piece / c.each + 1) * c.span, full = full_of(time, chunk);
  if (NEAR) return start < full ? (stop < full ? stop : full) : time;
  stop = stop < next ? stop : next;
  return stop < time ? stop : time;
}

static void gather(const real *from, long pitch, real *to, long wide, long count) {
  for (long t = 0; t < count; t++) memcpy(to + t * wide, from + t * pitch, wide * sizeof(real));
  memset(to + count * wide, 0, (PIECE - count) * wide * sizeof(real));
}

static void scatter(const real *from, long wide, real *to, long pitch, long count) {
  for (long t = 0; t < count; t++) memcpy(to + t * pitch, from + t * wide, wide * sizeof(real));
}

static real dot(const real *x, const real *y, long count) {
  vec part[4] = {{0}};
  long i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES)
    for (int j = 0; j < 4; j++) part[j] += load(x + i + j * LANES) * load(y + i + j * LANES);
  for (; i < count; i += LANES) part[0] += load(x + i) * load(y + i);
  return sum((part[0] + part[1]) + (part[2] + part[3]));
}

/* to_t = by_t from_t, or to_t += by_t from_t. */
static void scale(real *to, const real *from, const real *by, long wide, long count, int add) {
  for (long t = 0; t < count; t++)
    for (long j = t * wide; j < (t + 1) * wide; j += LANES)
      store(to + j, load(from + j) * by[t] + (add ? load(to + j) : (vec){0}));
}

/* to[count, in] = from[count, out] M^T, by way of M from^T: tokens are turned and not the matrix. */
static void through(desk *own, const real *M, const real *from, real *to, int in, int out) {
  const long count = UP(own->count);
  transpose(from, out, own->turned, PIECE, count, out);
  product(M, out, 1, own->turned, PIECE, out, 0, 1, own->result, PIECE, in, count);
  transpose(own->result, PIECE, to, in, in, count);
}

static void share(const text *x, long place, int gate, long count, shares *left) {
  real c = 1, m = 0, p = 1;
  memset(left->T, 0, sizeof left->T), memset(left->s, 0, sizeof left->s);
  for (long t = 0; t < count; t++) {
    long at = (place + t * x->heads) * GATES + gate;
    real eta = x->momentum[at], keep = x->keep[at], *T = left->T + t * PIECE, *s = left->s + t * PIECE;
    for (long i = 0; i < t; i++) s[i] = eta * s[i - PIECE], T[i] = keep * T[i - PIECE] + s[i];
    s[t] = T[t] = x->rate[at];
    p *= eta, c *= keep, m = keep * m + p;
    left->c[t] = c, left->m[t] = m, left->p[t] = p;
  }
}

/* A share before token t, which before the piece is `first`. */
static real before(const real *share, long t, real first) { return t ? share[t - 1] : first; }

/* The shares that token t reads with. */
static real c_of(const shares *left, long t) { return EXCLUSIVE ? before(left->c, t, 1) : left->c[t]; }
static real m_of(const shares *left, long t) { return EXCLUSIVE ? before(left->m, t, 0) : left->m[t]; }
static real T_of(const shares *left, long t, long i) { return !EXCLUSIVE ? left->T[t * PIECE + i] : t ? left->T[(t - 1) * PIECE + i] : 0; }

static void activate(const real *z, long pitch, real *value, real *slope, real *bend, long count) {
  for (long t = 0; t < count; t++)
    for (long j = 0; j < H; j += LANES) {
      activated s = activation(load(z + t * pitch + j));
      store(value + t * H + j, s.value);
      if (slope) store(slope + t * H + j, s.slope);
      if (bend) store(bend + t * H + j, s.bend);
    }
  memset(value + count * H, 0, (PIECE - count) * H * sizeof(real));
}

/* What keys make of all layers, and the errors back: fills a, e, slope and bend, and the trace but for its reads. */
static void compare(desk *own, real *trace) {
  const long count = own->count;
  const real *A = own->A;
  for (int l = 0; l < DEPTH; l++) {
    real *z = l < DEPTH - 1 ? trace + l * H : trace + 3 * HIDDEN;
    product(own->a[l], IN(l), 1, A + AT(l), OUT(l), IN(l), 0, 1, z, TRACE, count, OUT(l));
    if (l < DEPTH - 1) activate(z, TRACE, own->a[l + 1], own->slope[l + 1], own->bend[l + 1], count);
  }
  for (long t = 0; t < count; t++)
    for (long j = 0; j < V; j += LANES) {
      real *error = trace + t * TRACE + 3 * HIDDEN + j, *e = own->e[DEPTH - 1] + t * V + j;
      store(error, load(e) - load(error)); /* e holds v */
      store(e, load(error));
    }
  for (int l = DEPTH - 1; l; l--) {
    real *raised = trace + HIDDEN + (l - 1) * H, *e = own->e[l - 1];
    through(own, A + AT(l), own->e[l], own->one, H, OUT(l));
    scatter(own->one, H, raised, TRACE, count);
    for (long j = 0; j < count * H; j += LANES) store(e + j, load(own->one + j) * load(own->slope[l] + j));
    memset(e + count * H, 0, (PIECE - count) * H * sizeof(real));
  }
}

/* The products of `of`, h_t or a_t, with a_i of a layer. */
static void find_scores(desk *own, const real *of, int l) {
  transpose(own->a[l], IN(l), own->turned, PIECE, UP(own->count), IN(l));
  product(of, IN(l), 1, own->turned, PIECE, IN(l), 0, 1, own->scores, PIECE, own->count, UP(own->count));
}

static void read_layer(desk *own, int l, real *y, long pitch) {
  const long count = own->count;
  const shares *left = own->left + GATE(l);
  const real *W = own->state + AT(l), *S = W + SIZE;
  find_scores(own, own->h[l], l);
  for (long t = 0; t < count; t++)
    for (long i = 0; i < PIECE; i++) own->scores[t * PIECE + i] *= T_of(left, t, i);
  product(own->h[l], IN(l), 1, W, OUT(l), IN(l), 0, 1, own->one, OUT(l), count, OUT(l));
  product(own->h[l], IN(l), 1, S, OUT(l), IN(l), 0, 1, own->other, OUT(l), count, OUT(l));
  for (long t = 0; t < count; t++) {
    real c = c_of(left, t), m = m_of(left, t);
    for (long j = t * OUT(l); j < (t + 1) * OUT(l); j += LANES) store(own->one + j, load(own->one + j) * c + load(own->other + j) * m);
  }
  product(own->scores, PIECE, 1, own->e[l], OUT(l), count, own->one, 1, own->one, OUT(l), count, OUT(l));
  scatter(own->one, OUT(l), y, pitch, count);
}

/* From own->state to `next`, which may be it. */
static void write_layer(desk *own, int l, real *next) {
  const long count = own->count, end = count - 1;
  const shares *left = own->left + GATE(l);
  const real *W = own->state + AT(l), *S = W + SIZE, c = left->c[end], m = left->m[end];
  real *to = next + AT(l);
  for (long j = 0; j < IN(l) * OUT(l); j += LANES) store(to + j, load(W + j) * c + load(S + j) * m);
  scale(own->one, own->e[l], left->T + end * PIECE, OUT(l), count, 0);
  product(own->a[l], 1, IN(l), own->one, OUT(l), count, to, 1, to, OUT(l), IN(l), OUT(l));
  scale(own->one, own->e[l], left->s + end * PIECE, OUT(l), count, 0);
  product(own->a[l], 1, IN(l), own->one, OUT(l), count, S, left->p[end], to + SIZE, OUT(l), IN(l), OUT(l));
}

/* A piece's tokens from `start` on, whose first is number `place` of all. */
static void take(const text *x, long place, long count, desk *own) {
  own->count = count;
  gather(x->q + place * K, x->heads * K, own->h[0], K, count);
  gather(x->k + place * K, x->heads * K, own->a[0], K, count);
  gather(x->v + place * V, x->heads * V, own->e[DEPTH - 1], V, count);
  for (int g = 0; g < GATES; g++) share(x, place, g, count, own->left + g);
}
