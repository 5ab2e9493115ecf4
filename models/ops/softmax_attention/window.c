/* Softmax attention in a window, with keys that all tokens see, and its backward pass.

     y_i = sum_j softmax_j(scale q_i . k_j) v_j     over the last `window` keys up to i's place, and a prefix asked by a_i

   Queries go in blocks of SIDE against the keys that any of them sees. Scores stand turned, a row a key, with queries side by
   side: then keys and values are read as they lie, sums over keys are sums of vectors, and only queries have to be turned.

   REAL float or double   LANES what a register holds
   Layouts: q, y [batch, time, heads, D or V], keys and values [batch, before + time, heads, ..], of the prefix [batch or 1,
   prefix, heads, ..], each with steps of its own; D and V are multiples of LANES; logs [batch, heads, time]. */
#include "../native.h"
#include "../tiles.h"

#define SIDE (2 * LANES)

typedef struct {
  real *at;
  long apart, down, aside; /* how far rows of the batch, tokens and heads lie from one another */
} rows;

typedef struct {
  long batch, time, before, heads, prefix, window, D, V;
  double scale;
  rows q, k, v, asked, prefix_k, prefix_v, y; /* asked, the queries to the prefix: NULL where they are q */
  real *logs;                                 /* of the sum that each query's shares were divided by */
} text;

typedef struct {
  rows y, q, k, v, asked, prefix_k, prefix_v;
} gradients;

static inline real *row(const rows *x, long n, long t, long h) { return x->at + n * x->apart + t * x->down + h * x->aside; }

/* Queries from t on, `high` of them, and the keys that they see: `count` from `first` on, behind the prefix in `scores`. */
typedef struct {
  long n, h, t, high, first, count;
  real *q, *asked, *dy, *spare, *scores, *slopes; /* turned, [D or V, SIDE]; a block that is not full; [keys, SIDE] */
} block;

static block room_of(const text *x) {
  long widest = x->D > x->V ? x->D : x->V, keys = x->prefix + x->window + SIDE;
  block own = {.q = calloc(SIDE * (4 * widest + 2 * keys), sizeof(real))};
  own.asked = own.q + SIDE * widest, own.dy = own.asked + SIDE * widest, own.spare = own.dy + SIDE * widest;
  own.scores = own.spare + SIDE * widest, own.slopes = own.scores + SIDE * keys;
  return own;
}

static void place(const text *x, long n, long h, long t, block *own) {
  long first = x->before + t + 1 - x->window;
  own->n = n, own->h = h, own->t = t, own->high = x->time - t < SIDE ? x->time - t : SIDE;
  own->first = first > 0 ? first : 0, own->count = x->before + t + own->high - own->first;
}

/* to[wide, SIDE]: the block's rows of x, zeros behind the last. */
static void turn(const rows *x, const block *own, long wide, real *to) {
  const real *from = row(x, own->n, own->t, own->h);
  long down = x->down;
  if (own->high < SIDE) {
    memset(own->spare, 0, SIDE * wide * sizeof(real));
    for (long i = 0; i < own->high; i++) memcpy(own->spare + i * wide, from + i * down, wide * sizeof(real));
    from = own->spare, down = wide;
  }
  transpose(from, down, to, SIDE, SIDE, wide);
}

/* out[prefix + count, SIDE]: rows of the prefix times `first`, those of the window times `second`. */
static void meet(const text *x, const block *own, const rows *prefix, const real *first, const rows *keys, const real *second,
                 long wide, real *out) {
  const real *always = row(prefix, own->n, 0, own->h), *seen = row(keys, own->n, own->first, own->h);
  if (x->prefix) product(always, prefix->down, 1, first, SIDE, wide, 0, 0, out, SIDE, x->prefix, SIDE);
  product(seen, keys->down, 1, second, SIDE, wide, 0, 0, out + x->prefix * SIDE, SIDE, own->count, SIDE);
}

/* Scores in the place of products: scaled, and -infinity where a query does not see a key. `most`: the largest of each query. */
static void score(const text *x, const block *own, vec most[2]) {
  most[0] = most[1] = all(-INFINITY);
  for (long r = 0; r < x->prefix + own->count; r++) {
    long since = own->first + r - x->prefix - x->before - own->t; /* the first query that sees this key */
    int whole_row = r < x->prefix || (since <= 0 && since + x->window >= SIDE);
    for (int s = 0; s < 2; s++) {
      real *to = own->scores + r * SIDE + s * LANES;
      vec found = load(to) * (real)x->scale;
      whole i = LANE + (WHOLE)(s * LANES);
      if (!whole_row) found = choose((i >= (WHOLE)since) & (i < (WHOLE)(since + x->window)), found, all(-INFINITY));
      store(to, found);
      most[s] = choose(most[s] > found, most[s], found);
    }
  }
}

/* Rows of the queries' side: shares, which are read down their columns, times keys or values. Those of the prefix go to
   `prefix_to`, which may be `to`. */
static void spread(const text *x, const block *own, const real *shares, const rows *prefix, const rows *keys,
                   const rows *prefix_to, const rows *to, long wide) {
  const real *always = row(prefix, own->n, 0, own->h), *seen = row(keys, own->n, own->first, own->h);
  real *first = row(prefix_to, own->n, own->t, own->h), *out = row(to, own->n, own->t, own->h);
  const real *found = x->prefix && first == out ? out : 0;
  if (x->prefix) product(shares, 1, SIDE, always, prefix->down, x->prefix, 0, 0, first, prefix_to->down, own->high, wide);
  shares += x->prefix * SIDE;
  product(shares, 1, SIDE, seen, keys->down, own->count, found, 1, out, to->down, own->high, wide);
}

static void read_block(const text *x, block *own) {
  vec most[2], total[2] = {{0}, {0}};
  long keys = x->prefix + own->count;
  turn(&x->q, own, x->D, own->q);
  if (x->asked.at) turn(&x->asked, own, x->D, own->asked);
  meet(x, own, &x->prefix_k, x->asked.at ? own->asked : own->q, &x->k, own->q, x->D, own->scores);
  score(x, own, most);
  for (long r = 0; r < keys; r++)
    for (int s = 0; s < 2; s++) {
      vec share = exp_of_negative(load(own->scores + r * SIDE + s * LANES) - most[s]);
      total[s] += share;
      store(own->scores + r * SIDE + s * LANES, share);
    }
  spread(x, own, own->scores, &x->prefix_v, &x->v, &x->y, &x->y, x->V);
  real *logs = x->logs ? x->logs + (own->n * x->heads + own->h) * x->time + own->t : 0;
  for (long i = 0; i < own->high; i++) {
    real whole_share = total[i / LANES][i % LANES], *y = row(&x->y, own->n, own->t + i, own->h);
    for (long c = 0; c < x->V; c += LANES) store(y + c, load(y + c) / whole_share);
    if (logs) logs[i] = most[i / LANES][i % LANES] + (real)log(whole_share);
  }
}

void window_forward(const text *x, int threads) {
#pragma omp parallel num_threads(threads)
  {
    block own = room_of(x);
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < x->heads; h++)
        for (long t = 0; t < x->time; t += SIDE) place(x, n, h, t, &own), read_block(x, &own);
    free(own.q);
  }
}

/* The shares again, and the gradients of the scores in `slopes`: share times (dy . v less the shares' mean of that). */
static void shares_back(const text *x, block *own) {
  const real *logs = x->logs + (own->n * x->heads + own->h) * x->time + own->t;
  vec log_of[2], mean[2] = {{0}, {0}}, most[2];
  for (int i = 0; i < SIDE; i++) log_of[i / LANES][i % LANES] = i < own->high ? logs[i] : INFINITY;
  score(x, own, most);
  meet(x, own, &x->prefix_v, own->dy, &x->v, own->dy, x->V, own->slopes);
  for (long r = 0; r < x->prefix + own->count; r++)
    for (int s = 0; s < 2; s++) {
      long at = r * SIDE + s * LANES;
      vec share = exp_of_negative(load(own->scores + at) - log_of[s]);
      mean[s] += share * load(own->slopes + at);
      store(own->scores + at, share);
    }
  for (long r = 0; r < x->prefix + own->count; r++)
    for (int s = 0; s < 2; s++) {
      long at = r * SIDE + s * LANES;
      store(own->slopes + at, load(own->scores + at) * (load(own->slopes + at) - mean[s]) * (real)x->scale);
    }
}

/* Gradients of keys or values grow by shares times rows of the queries' side. */
static void grow(const text *x, const block *own, const real *shares, const rows *prefix_from, const rows *from,
                 const rows *prefix_to, const rows *to, long wide) {
  const real *asked = row(prefix_from, own->n, own->t, own->h), *q = row(from, own->n, own->t, own->h);
  real *first = row(prefix_to, own->n, 0, own->h), *out = row(to, own->n, own->first, own->h);
  if (x->prefix)
    product(shares, SIDE, 1, asked, prefix_from->down, own->high, first, 1, first, prefix_to->down, x->prefix, wide);
  shares += x->prefix * SIDE;
  product(shares, SIDE, 1, q, from->down, own->high, out, 1, out, to->down, own->count, wide);
}

static void block_back(const text *x, const gradients *d, block *own) {
  const rows *asked = x->asked.at ? &x->asked : &x->q, *dasked = x->asked.at ? &d->asked : &d->q;
  turn(&x->q, own, x->D, own->q), turn(&d->y, own, x->V, own->dy);
  if (x->asked.at) turn(&x->asked, own, x->D, own->asked);
  meet(x, own, &x->prefix_k, x->asked.at ? own->asked : own->q, &x->k, own->q, x->D, own->scores);
  shares_back(x, own);
  grow(x, own, own->scores, &d->y, &d->y, &d->prefix_v, &d->v, x->V);
  grow(x, own, own->slopes, asked, &x->q, &d->prefix_k, &d->k, x->D);
  spread(x, own, own->slopes, &x->prefix_k, &x->k, dasked, &d->q, x->D);
}

static void clear(const rows *x, long n, long h, long from, long to, long wide) {
  for (long t = from; t < to; t++) memset(row(x, n, t, h), 0, wide * sizeof(real));
}

void window_backward(const text *x, const gradients *d, int threads) {
#pragma omp parallel num_threads(threads)
  {
    block own = room_of(x);
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < x->heads; h++) {
        clear(&d->prefix_k, n, h, 0, x->prefix, x->D), clear(&d->prefix_v, n, h, 0, x->prefix, x->V);
        for (long t = 0, met = 0; t < x->time; met = own.first + own.count, t += SIDE) {
          place(x, n, h, t, &own);
          clear(&d->k, n, h, met, own.first + own.count, x->D), clear(&d->v, n, h, met, own.first + own.count, x->V);
          block_back(x, d, &own);
        }
      }
    free(own.q);
  }
}
