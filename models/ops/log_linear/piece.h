/* A piece of a chunk: what its tokens give to one another, to a state and from one, and where buckets go as tokens are counted.
   The words are those of `native.c`. */
#include "products.h"

#define TALL WHOLE_VECTORS(K)
#define BROAD WHOLE_VECTORS(V)
#define WIDE WHOLE_VECTORS(CHUNK + K)
#define STRIP 16 /* rows of a table below the diagonal that go together */
#define EACH_STRIP(r, rows, own) \
  for (int r = (own)->from, rows; rows = r + STRIP < (own)->to ? STRIP : (own)->to - r, r < (own)->to; r += STRIP)

typedef real state[TALL][BROAD];

typedef struct {
  long batch, time, heads, shared, count, levels; /* shared: q and k have one head for all; count: tokens before the text */
  const real *q, *k, *v, *weights, *a, *b, *table, *turns;
} text;

typedef struct {
  real *q, *k, *v, *weights, *a, *b, *table, *turns; /* those of q and k for every head by itself */
} gradients;

/* A chunk's tokens at places from `from` to `to` and what they do; `origin` is the text's token at place 0. */
typedef struct {
  long number, origin;
  int from, to;
  real P[CHUNK][CHUNK], ratio[CHUNK][CHUNK], weighed[CHUNK][CHUNK], reach[CHUNK]; /* weighed: P times the weights of the levels */
  real R[CHUNK][TALL], W[CHUNK][TALL], M[TALL][TALL], read[CHUNK][TALL], v[CHUNK][BROAD], y[CHUNK][BROAD];
  state turned;
} piece;

static inline int smaller(long one, long other) { return one < other ? one : other; }
static inline int digits(long number) { return number ? 8 * sizeof number - __builtin_clzl(number) : 0; }
static inline int level(const text *x, long one, long other) { return smaller(digits(one ^ other), x->levels - 1); }
static inline int last_bucket(const text *x) { return x->levels - 2; }
/* After `count` tokens: where a token is, and what has been filled. */
static inline int bucket(const text *x, long count, long token) { return level(x, count, token) - 1; }
static inline int is_full(const text *x, long count, int j) {
  return j < last_bucket(x) ? count >> j & 1 : count >> j > 0;
}
static inline long begin(const text *x, long count, int j) { return j < last_bucket(x) ? count >> (j + 1) << (j + 1) : 0; }
static inline long row_of(const text *x, long n, long t, long h) { return (n * x->time + t) * x->heads + h; }
static inline long key_of(const text *x, long n, long t, long h) { return x->shared ? n * x->time + t : row_of(x, n, t, h); }
static inline long pieces_of(const text *x) { return (x->count % CHUNK + x->time + CHUNK - 1) / CHUNK; }
static inline long before(const text *x, const piece *own) { return x->count + own->origin + own->from; }
static inline long behind(const text *x, const piece *own) { return x->count + own->origin + own->to; }

static inline void place_piece(const text *x, long number, piece *own) {
  long past = x->count % CHUNK;
  own->number = number, own->origin = number * CHUNK - past;
  own->from = number ? 0 : past, own->to = smaller(CHUNK, x->time - own->origin);
}

/* How many states a backward pass over `time` tokens starts from: the full buckets before each piece. */
long slots(long count, long time, long levels) {
  text x = {.time = time, .count = count, .levels = levels};
  piece own;
  long found = 0;
  for (long p = 0; p < pieces_of(&x); p++) {
    place_piece(&x, p, &own);
    for (int j = 0; j < levels - 1; j++) found += is_full(&x, before(&x, &own), j);
  }
  return found;
}

/* Places of one level that a token of the chunk sees, from `first` up to `last`, `last` not among them. */
typedef struct {
  int level, first, last;
} run;

static inline int runs_of(const text *x, const piece *own, int place, run *found) {
  int count = 1;
  found[0] = (run){0, place, place + 1};
  for (int digit = 0; 1 << digit < CHUNK; digit++) {
    int first = place >> (digit + 1) << (digit + 1), last = first + (1 << digit);
    if (place >> digit & 1 && last > own->from)
      found[count++] = (run){smaller(digit + 1, x->levels - 1), first > own->from ? first : own->from, last};
  }
  return count;
}

static void weigh(const text *x, long n, long h, piece *own) {
  for (int t = own->from; t < own->to; t++) {
    const real *weights = x->weights + row_of(x, n, own->origin + t, h) * x->levels;
    run runs[16];
    int count = runs_of(x, own, t, runs);
    memset(own->weighed[t], 0, sizeof own->weighed[t]);
    for (int r = 0; r < count; r++)
      for (int s = runs[r].first; s < runs[r].last; s++) own->weighed[t][s] = own->P[t][s] * weights[runs[r].level];
  }
}

/* P, R, W and M of a piece. */
static void make_parts(const text *x, long n, long h, const real *scores, piece *own) {
  long count = pieces_of(x), chunk = n * count + own->number;
  scores += ((n * (x->shared ? 1 : x->heads) + (x->shared ? 0 : h)) * count + own->number) * CHUNK * CHUNK;
  for (int t = own->from; t < own->to; t++) {
    long row = row_of(x, n, own->origin + t, h), key = key_of(x, n, own->origin + t, h) * K;
    real b = !COMPARE && x->b ? x->b[row] : 1;
    for (int c = 0; c < V; c++) own->v[t][c] = x->v[row * V + c] * b;
    if (COMPARE) {
      const real *found = x->table + ((chunk * CHUNK + t) * x->heads + h) * WIDE;
      memcpy(own->P[t], found, sizeof own->P[t]), memcpy(own->R[t], found + CHUNK, K * sizeof(real));
      continue;
    }
    real a = x->a ? x->a[row] : 1;
    for (int s = 0; s <= t; s += LANES) {
      vec ratio = t > own->from ? load(own->ratio[t - 1] + s) * a : (vec){0};
      store(own->ratio[t] + s, ratio), store(own->P[t] + s, load(scores + t * CHUNK + s) * ratio);
    }
    own->ratio[t][t] = 1, own->P[t][t] = scores[t * CHUNK + t];
    for (int s = 0; s < own->from; s++) own->P[t][s] = 0; /* whatever lies there: 0 times infinity is none */
    for (int s = t + 1; s < CHUNK; s++) own->ratio[t][s] = own->P[t][s] = 0;
    own->M[0][0] = t > own->from ? own->M[0][0] * a : a; /* all that was forgotten since the piece began */
    for (int i = 0; i < K; i++) own->R[t][i] = x->q[key + i] * own->M[0][0];
    own->reach[t] = own->M[0][0];
  }
  const real *turns = COMPARE ? x->turns + (chunk * x->heads + h) * K * WIDE : 0;
  for (int s = own->from; s < own->to; s++)
    for (int i = 0; i < K; i++)
      own->W[s][i] = COMPARE ? turns[i * WIDE + s]
                             : x->k[key_of(x, n, own->origin + s, h) * K + i] * own->ratio[own->to - 1][s];
  if (COMPARE)
    for (int i = 0; i < K; i++) memcpy(own->M[i], turns + i * WIDE + CHUNK, K * sizeof(real));
}

/* What every token reads of a bucket: R times its weight, with which the bucket is read as a product. */
static const real *weigh_reads(const text *x, long n, long h, piece *own, int j) {
  long token = begin(x, before(x, own), j);
  for (int t = own->from; t < own->to; t++) {
    real w = x->weights[row_of(x, n, own->origin + t, h) * x->levels + level(x, x->count + own->origin + t, token)];
    for (int i = 0; i < TALL; i += LANES) store(own->read[t] + i, load(own->R[t] + i) * w);
  }
  return own->read[own->from];
}

/* to = M S, or M^T S */
static void turn(const piece *own, const state S, state to, int back) {
  if (COMPARE) {
    memset(to, 0, sizeof(state));
    multiply(to[0], BROAD, own->M[0], back ? 1 : TALL, back ? TALL : 1, S[0], BROAD, K, K, BROAD);
  } else
    for (int i = 0; i < K * BROAD; i += LANES) store(to[0] + i, load(S[0] + i) * own->M[0][0]);
}

/* The next places from `first` whose tokens share a bucket after the piece: where they end. */
static inline int alike(const text *x, const piece *own, int first) {
  int last = first + 1, found = bucket(x, behind(x, own), x->count + own->origin + first);
  while (last < own->to && bucket(x, behind(x, own), x->count + own->origin + last) == found) last++;
  return last;
}

/* The buckets behind the piece. Old ones move upwards, so the highest goes first. */
static void count_up(const text *x, piece *own, state *S) {
  long full = 0, count = before(x, own);
  for (int j = last_bucket(x); j >= 0; j--) {
    if (!is_full(x, count, j)) continue;
    int to = bucket(x, behind(x, own), begin(x, count, j));
    turn(own, S[j], own->turned, 0);
    for (int i = 0; i < TALL * BROAD; i += LANES)
      store(S[to][0] + i, load(own->turned[0] + i) + (full >> to & 1 ? load(S[to][0] + i) : (vec){0}));
    full |= 1L << to;
  }
  for (int first = own->from, last; first < own->to; first = last) {
    int to = bucket(x, behind(x, own), x->count + own->origin + first);
    last = alike(x, own, first);
    if (!(full >> to & 1)) memset(S[to], 0, sizeof(state));
    multiply(S[to][0], BROAD, own->W[first], 1, TALL, own->v[first], BROAD, K, last - first, BROAD);
    full |= 1L << to;
  }
}

static void read_piece(const text *x, long n, long h, piece *own, const state *S, real *y) {
  weigh(x, n, h, own);
  memset(own->y, 0, sizeof own->y);
  EACH_STRIP(r, rows, own)
  multiply(own->y[r], BROAD, own->weighed[r] + own->from, CHUNK, 1, own->v[own->from], BROAD, rows, r + rows - own->from, BROAD);
  for (int j = 0; j <= last_bucket(x); j++) {
    if (!is_full(x, before(x, own), j)) continue;
    const real *reads = weigh_reads(x, n, h, own, j);
    multiply(own->y[own->from], BROAD, reads, TALL, 1, S[j][0], BROAD, own->to - own->from, K, BROAD);
  }
  for (int t = own->from; t < own->to; t++) memcpy(y + row_of(x, n, own->origin + t, h) * V, own->y[t], V * sizeof(real));
}
