/* A piece of a text whose tokens go together: its rows laid side by side, what stays from token to token, and what each gives to
   the others. The words are those of `delta_rule.c`; include native.h and tiles.h before it. */
#include "rows.h"

#define ROWS (2 * CHUNK)
#define WIDER (TALL > BROAD ? TALL : BROAD)
/* Columns whose sums stay in registers while tokens follow one another. */
#define SIDE (BROAD / LANES % 8 == 0 ? 8 : BROAD / LANES % 4 == 0 ? 4 : BROAD / LANES % 2 == 0 ? 2 : 1)
#define EACH(j) _Pragma("GCC unroll 8") for (int j = 0; j < SIDE; j++)

typedef struct {
  long batch, time, heads, shared; /* shared: q, p and w have one head for all */
  const real *q, *p, *w, *v, *a, *b;
} text;

typedef struct {
  real *q, *p, *w, *v, *a, *b; /* of every head by itself; p and b may be NULL, w holds both where TIED */
} gradients;

/* `count` tokens from `start` on. Rows of what is compared lie behind those of the queries, from row `count` on. */
typedef struct {
  long start, count;
  state S;
  real QP[ROWS][TALL], W[CHUNK][TALL], E[CHUNK][BROAD], U[CHUNK][BROAD], Z[ROWS][BROAD]; /* Z: what is read of the state */
  real b[CHUNK], reach[ROWS], left[ROWS][CHUNK], scores[ROWS][CHUNK]; /* left is r_ts, scores r_ts (q_t . w_s) */
  real turned[TALL * CHUNK];
} piece;

typedef struct {
  state G;
  real QP[ROWS][TALL], W[CHUNK][TALL], U[CHUNK][BROAD], F[ROWS][BROAD], scores[ROWS][CHUNK], a[CHUNK], b[CHUNK];
  real turned[WIDER * WIDER > WIDER * CHUNK ? WIDER * WIDER : WIDER * CHUNK];
} piece_back;

static inline long row_of(const text *x, long n, long t, long h) { return (n * x->time + t) * x->heads + h; }
static inline long pieces_of(const text *x) { return (x->time + CHUNK - 1) / CHUNK; }

/* A piece's rows to where the text has them; nowhere if that is NULL. */
static inline void scatter(const text *x, long n, long h, const piece *own, const real *from, int wide, real *to, int width) {
  if (to)
    for (long t = 0; t < own->count; t++)
      memcpy(to + row_of(x, n, own->start + t, h) * width, from + t * wide, width * sizeof(real));
}

/* What stays at each token: `left` of what every token wrote, `reach` of the state before the piece. */
static void find_left(const text *x, long n, long h, piece *own) {
  const long count = own->count;
  vec left[CHUNK / LANES] = {{0}}; /* in registers: what was stored number by number is slow to load as vectors */
  real reach = 1;
  for (long t = 0; t < count; t++) {
    real a = DECAY ? x->a[row_of(x, n, own->start + t, h)] : 1;
    for (int c = 0; c < CHUNK / LANES; c++) {
      left[c] = choose(LANE + c * LANES == (WHOLE)t, all(1), left[c] * a);
      store(own->left[t] + c * LANES, left[c]);
      store(own->left[count + t] + c * LANES, choose(LANE + c * LANES == (WHOLE)t, (vec){0}, left[c]));
    }
    own->reach[t] = reach *= a;
    own->reach[count + t] = reach;
  }
  if (BEFORE)
    for (long t = 0; t < count; t++) {
      own->reach[count + t] = t ? own->reach[t - 1] : 1;
      for (int s = 0; s < CHUNK; s += LANES) store(own->left[count + t] + s, t ? load(own->left[t - 1] + s) : (vec){0});
    }
}

static void fetch_piece(const text *x, long n, long h, long p, const real *also, const real *and) {
  for (long t = p < 0 ? x->time : p * CHUNK; t < (p + 1) * CHUNK && t < x->time; t++) {
    long row = row_of(x, n, t, h), key = (x->shared ? n * x->time + t : row) * K;
    fetch(x->q + key, K), fetch(x->w + key, K), fetch(x->v + row * V, V);
    if (!TIED) fetch(x->p + key, K);
    if (also) fetch(also + row * V, V);
    if (and) fetch(and + row * V, V);
  }
}

static void gather(const text *x, long n, long h, long p, piece *own) {
  own->start = p * CHUNK, own->count = x->time - own->start < CHUNK ? x->time - own->start : CHUNK;
  for (long t = 0; t < own->count; t++) {
    long row = row_of(x, n, own->start + t, h), key = (x->shared ? n * x->time + own->start + t : row) * K;
    memcpy(own->QP[t], x->q + key, K * sizeof(real)), memcpy(own->W[t], x->w + key, K * sizeof(real));
    memcpy(own->QP[own->count + t], x->p + key, K * sizeof(real));
    memcpy(own->E[t], x->v + row * V, V * sizeof(real));
    own->b[t] = x->b ? x->b[row] : 1;
  }
  for (long t = own->count; t < CHUNK; t++) memset(own->W[t], 0, sizeof own->W[t]), memset(own->U[t], 0, sizeof own->U[t]);
  find_left(x, n, h, own);
}

static void find_scores(piece *own) {
  const long rows = 2 * own->count;
  transpose(own->W[0], TALL, own->turned, CHUNK, CHUNK, TALL);
  product(own->QP[0], TALL, 1, own->turned, CHUNK, K, 0, 1, own->scores[0], CHUNK, rows, CHUNK);
  for (long t = 0; t < rows; t++)
    for (int s = 0; s < CHUNK; s += LANES) store(own->scores[t] + s, load(own->scores[t] + s) * load(own->left[t] + s));
}

/* E, which holds the values, and U, one token after the other. */
static void find_written(piece *own) {
  const long count = own->count;
  for (long c = 0; c < BROAD; c += SIDE * LANES)
    for (long t = 0; t < count; t++) {
      vec error[SIDE];
      EACH(j) error[j] = load(own->E[t] + c + j * LANES);
      EACH(j) error[j] -= load(own->Z[count + t] + c + j * LANES);
      for (long s = 0; s < t; s++) EACH(j) error[j] -= load(own->U[s] + c + j * LANES) * own->scores[count + t][s];
      EACH(j) store(own->E[t] + c + j * LANES, error[j]), store(own->U[t] + c + j * LANES, error[j] * own->b[t]);
    }
}
