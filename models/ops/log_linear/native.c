/* Matrix states in chunks, with the backward pass: products inside a chunk, states between chunks.

     y_t = sum_s w_t[level of s] P_ts v_s + sum_j w_t[level of j] S_j^T R_t,        S_j <- M S_j,   S <- S + W_s v_s^T

   s are the chunk's tokens up to t, j the older states: the buckets of a counter, read with the weights of
   their levels. Without a comparison, with c_t the sum of log a up to token t,

     P_ts = e^{c_t - c_s} q_t . k_s,   R_t = e^{c_t} q_t,   W_s = e^{c - c_s} k_s,   M = e^c,   and b_s v_s in the place of v_s

   Factors between two tokens are products of the decays that lie between, so that a closed gate costs no digit. With a comparison
   (COMPARE) the matrix state's own law has made P, R, W and M, by reading the tokens' writes side by side
   (`native.py`).

   Chunks start at multiples of CHUNK tokens; a text that begins or ends inside one has a piece of it, whose tokens are known by
   their places in the chunk. Level and bucket of a token hang on the binary digits in which two places in the text differ.

   REAL float or double   K, V widths of keys and values   LANES numbers a vector   CHUNK a power of two   COMPARE 0 or 1

   Layouts: q, k [batch, time, heads or 1, K]; v, y [batch, time, heads, V]; weights [.., levels]; a, b [batch, time, heads], NULL
   for 1; scores q . k [batch, heads or 1, pieces, CHUNK, CHUNK]; table P and R [batch, pieces, CHUNK, heads, WIDE]; turns W^T and
   M [batch, pieces, heads, K, WIDE]; states [batch, heads, levels - 1, K, V]; kept [batch, heads, slots, TALL, BROAD]. */
#include "piece.h"

static void load_rows(const text *x, long n, long h, const piece *own, const real *from, real to[CHUNK][TALL]) {
  for (int t = own->from; t < own->to; t++) memcpy(to[t], from + key_of(x, n, own->origin + t, h) * K, K * sizeof(real));
}

/* Queries times keys, once where all heads share them. */
static void score(const text *x, real *scores, int threads) {
  long heads = x->shared ? 1 : x->heads, count = pieces_of(x);
#pragma omp parallel num_threads(threads)
  {
    piece *own = calloc(1, sizeof(piece));
    real (*turned)[CHUNK] = calloc(TALL, sizeof *turned);
#pragma omp for collapse(3) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < heads; h++)
        for (long p = 0; p < count; p++) {
          real *to = scores + ((n * heads + h) * count + p) * CHUNK * CHUNK;
          memset(to, 0, CHUNK * CHUNK * sizeof(real));
          place_piece(x, p, own);
          load_rows(x, n, h, own, x->q, own->R), load_rows(x, n, h, own, x->k, own->W);
          transpose(turned[0], CHUNK, own->W[0], TALL, CHUNK, TALL);
          EACH_STRIP(r, rows, own)
          multiply(to + r * CHUNK, CHUNK, own->R[r], TALL, 1, turned[0], CHUNK, rows, K, smaller(CHUNK, WHOLE_VECTORS(r + rows)));
        }
    free(own), free(turned);
  }
}

static void load_state(const real *from, state to) {
  for (int i = 0; i < K; i++) memcpy(to[i], from + i * V, V * sizeof(real));
}

static void store_state(real *to, const state from, int full) {
  for (int i = 0; i < K * V; i++) to[i] = full ? from[i / V][i % V] : 0;
}

/* after: the last buckets; scores are made here; kept may be NULL. */
void forward(const text *x, const real *first, real *scores, real *y, real *after, real *kept, int threads) {
  long each = slots(x->count, x->time, x->levels), buckets = x->levels - 1;
  if (!COMPARE) score(x, scores, threads);
#pragma omp parallel num_threads(threads)
  {
    piece *own = calloc(1, sizeof(piece));
    state *S = calloc(buckets, sizeof(state));
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < x->heads; h++) {
        long head = n * x->heads + h;
        state *keep = (state *)kept + (kept ? head * each : 0);
        for (int j = 0; j < buckets; j++) load_state(first + (head * buckets + j) * K * V, S[j]);
        for (long p = 0; p < pieces_of(x); p++) {
          place_piece(x, p, own), make_parts(x, n, h, scores, own);
          for (int j = 0; kept && j < buckets; j++)
            if (is_full(x, before(x, own), j)) memcpy(keep++, S[j], sizeof(state));
          read_piece(x, n, h, own, S, y), count_up(x, own, S);
        }
        for (int j = 0; j < buckets; j++)
          store_state(after + (head * buckets + j) * K * V, S[j], is_full(x, x->count + x->time, j));
      }
    free(own), free(S);
  }
}

/* What the backward pass has of a piece: gradients of the tables, and the rows that products need turned over. */
typedef struct {
  real slope[CHUNK][CHUNK], R[CHUNK][TALL], W[CHUNK][TALL], M[TALL][TALL], v[CHUNK][BROAD], y[CHUNK][BROAD];
  real over[BROAD][CHUNK], state_over[BROAD][TALL], met[CHUNK][TALL];
  real P[CHUNK][CHUNK];
} piece_back;

/* Back over the products inside the chunk: `slope` becomes the gradient of P. */
static void inside_back(const text *x, long n, long h, const piece *own, piece_back *d, const gradients *to) {
  transpose(d->over[0], CHUNK, own->v[0], BROAD, CHUNK, BROAD);
  memset(d->slope, 0, sizeof d->slope);
  EACH_STRIP(r, rows, own) {
    multiply(d->slope[r], CHUNK, d->y[r], BROAD, 1, d->over[0], CHUNK, rows, V, smaller(CHUNK, WHOLE_VECTORS(r + rows)));
    multiply(d->v[r], BROAD, own->weighed[r] + r, 1, CHUNK, d->y[r], BROAD, rows, own->to - r, BROAD);
  }
  for (int t = own->from; t < own->to; t++) {
    memset(d->slope[t], 0, own->from * sizeof(real));
    for (int s = t + 1; s < CHUNK; s++) d->slope[t][s] = 0;
    long row = row_of(x, n, own->origin + t, h) * x->levels;
    run runs[16];
    int count = runs_of(x, own, t, runs);
    memset(to->weights + row, 0, x->levels * sizeof(real));
    for (int r = 0; r < count; r++) {
      real w = x->weights[row + runs[r].level], sum = 0;
      for (int s = runs[r].first; s < runs[r].last; s++) {
        sum += d->slope[t][s] * own->P[t][s];
        d->slope[t][s] *= w;
      }
      to->weights[row + runs[r].level] += sum;
    }
  }
}

/* Back over an old bucket S that was read and turned: G is the gradient of the bucket where it went, `next` that of S. */
static void bucket_back(const text *x, long n, long h, piece *own, piece_back *d, int j, const state S, const state G, state next,
                        const gradients *to) {
  transpose(d->state_over[0], TALL, S[0], BROAD, TALL, BROAD);
  memset(d->met, 0, sizeof d->met);
  multiply(d->met[own->from], TALL, d->y[own->from], BROAD, 1, d->state_over[0], TALL, own->to - own->from, V, TALL);
  for (int t = own->from; t < own->to; t++) {
    long token = begin(x, before(x, own), j);
    long place = row_of(x, n, own->origin + t, h) * x->levels + level(x, x->count + own->origin + t, token);
    to->weights[place] += dot(own->R[t], d->met[t], TALL);
    for (int i = 0; i < TALL; i += LANES) store(d->R[t] + i, load(d->R[t] + i) + load(d->met[t] + i) * x->weights[place]);
  }
  turn(own, G, next, 1);
  multiply(next[0], BROAD, weigh_reads(x, n, h, own, j), 1, TALL, d->y[own->from], BROAD, K, own->to - own->from, BROAD);
  if (COMPARE) multiply(d->M[0], TALL, G[0], BROAD, 1, d->state_over[0], TALL, K, V, TALL);
  else d->M[0][0] += dot(S[0], G[0], K * BROAD);
}

/* Back over a piece's writes, each token's to the bucket where it went. */
static void writes_back(const text *x, const piece *own, piece_back *d, const state *G) {
  for (int first = own->from, last; first < own->to; first = last) {
    const real *slope = G[bucket(x, behind(x, own), x->count + own->origin + first)][0];
    last = alike(x, own, first);
    transpose(d->state_over[0], TALL, slope, BROAD, TALL, BROAD);
    multiply(d->W[first], TALL, own->v[first], BROAD, 1, d->state_over[0], TALL, last - first, V, TALL);
    multiply(d->v[first], BROAD, own->W[first], TALL, 1, slope, BROAD, last - first, K, BROAD);
  }
}

/* Gradients of a piece's log a: those of a product of decays go to each. `slope` becomes the gradient of the scores. */
static void gates_back(const text *x, long n, long h, const piece *own, piece_back *d, real *to) {
  real reach = 0, enter = 0, across[CHUNK] = {0}, keep = d->M[0][0] * own->M[0][0];
  for (int t = own->to - 1; t >= own->from; t--) {
    vec sum_across = {0};
    for (int s = 0; s < t; s += LANES) { /* both are 0 above the diagonal; on it nothing lies between */
      vec slope = load(d->slope[t] + s), passed = load(across + s) + slope * load(own->P[t] + s);
      store(across + s, passed), store(d->slope[t] + s, slope * load(own->ratio[t] + s));
    }
    across[t] = 0;
    for (int s = 0; s < t; s += LANES) sum_across += load(across + s);
    reach += dot(own->R[t], d->R[t], TALL);
    if (to) to[row_of(x, n, own->origin + t, h)] = sum(sum_across) + reach + keep;
  }
  for (int t = own->from; to && t < own->to; t++) {
    to[row_of(x, n, own->origin + t, h)] += enter;
    enter += dot(own->W[t], d->W[t], TALL);
  }
}

static void scatter(const text *x, long n, long h, const piece *own, piece_back *d, const gradients *to, real *scores) {
  long count = pieces_of(x), chunk = n * count + own->number;
  if (!COMPARE) {
    gates_back(x, n, h, own, d, to->a);
    memcpy(scores + ((n * x->heads + h) * count + own->number) * CHUNK * CHUNK, d->slope, sizeof d->slope);
  }
  for (int t = own->from; t < own->to; t++) {
    long row = row_of(x, n, own->origin + t, h);
    real b = !COMPARE && x->b ? x->b[row] : 1, rate = 0;
    for (int c = 0; c < V; c++) to->v[row * V + c] = d->v[t][c] * b;
    if (to->b) {
      for (int c = 0; c < V; c++) rate += d->v[t][c] * x->v[row * V + c];
      to->b[row] = rate;
    }
    if (COMPARE) {
      real *found = to->table + ((chunk * CHUNK + t) * x->heads + h) * WIDE;
      memcpy(found, d->slope[t], sizeof d->slope[t]), memcpy(found + CHUNK, d->R[t], K * sizeof(real));
      continue;
    }
    real enter = own->ratio[own->to - 1][t];
    for (int i = 0; i < K; i++) to->q[row * K + i] = d->R[t][i] * own->reach[t], to->k[row * K + i] = d->W[t][i] * enter;
  }
  if (!COMPARE) return;
  real *turns = to->turns + (chunk * x->heads + h) * K * WIDE;
  for (int i = 0; i < K; i++) {
    for (int s = own->from; s < own->to; s++) turns[i * WIDE + s] = d->W[s][i];
    memcpy(turns + i * WIDE + CHUNK, d->M[i], K * sizeof(real));
  }
}

/* Back over the scores, whose gradients lie head by head: to the first head of q and k where all share them. */
static void score_back(const text *x, const real *scores, const gradients *to, int threads) {
  long heads = x->shared ? 1 : x->heads, count = pieces_of(x);
#pragma omp parallel num_threads(threads)
  {
    piece *own = calloc(1, sizeof(piece));
    piece_back *d = calloc(1, sizeof(piece_back));
#pragma omp for collapse(3) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < heads; h++)
        for (long p = 0; p < count; p++) {
          place_piece(x, p, own);
          load_rows(x, n, h, own, x->q, own->R), load_rows(x, n, h, own, x->k, own->W);
          memset(d->P, 0, sizeof d->P), memset(d->R, 0, sizeof d->R), memset(d->W, 0, sizeof d->W);
          for (long one = h; one < (x->shared ? x->heads : h + 1); one++) {
            const real *from = scores + ((n * x->heads + one) * count + p) * CHUNK * CHUNK;
            for (int i = 0; i < CHUNK * CHUNK; i += LANES) store(d->P[0] + i, load(d->P[0] + i) + load(from + i));
          }
          EACH_STRIP(r, rows, own) {
            multiply(d->R[r], TALL, d->P[r] + own->from, CHUNK, 1, own->W[own->from], TALL, rows, r + rows - own->from, TALL);
            multiply(d->W[r], TALL, d->P[r] + r, 1, CHUNK, own->R[r], TALL, rows, own->to - r, TALL);
          }
          for (int t = own->from; t < own->to; t++)
            for (int i = 0; i < K; i++) {
              long place = row_of(x, n, own->origin + t, h) * K + i;
              to->q[place] += d->R[t][i], to->k[place] += d->W[t][i];
            }
        }
    free(own), free(d);
  }
}

/* state: the gradient of the last buckets on entry, of the first on return; slopes: room for the gradients of the scores. */
void backward(const text *x, const real *scores, const real *kept, const real *dy, real *after, real *slopes, const gradients *to,
              int threads) {
  long each = slots(x->count, x->time, x->levels), buckets = x->levels - 1;
#pragma omp parallel num_threads(threads)
  {
    piece *own = calloc(1, sizeof(piece));
    piece_back *d = calloc(1, sizeof(piece_back));
    state *G = calloc(2 * buckets, sizeof(state)), *next = G + buckets;
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < x->heads; h++) {
        long head = n * x->heads + h;
        const state *old = (const state *)kept + (head + 1) * each;
        for (int j = 0; j < buckets; j++) load_state(after + (head * buckets + j) * K * V, G[j]);
        for (long p = pieces_of(x) - 1; p >= 0; p--) {
          place_piece(x, p, own), make_parts(x, n, h, scores, own), weigh(x, n, h, own);
          memset(d->R, 0, sizeof d->R), memset(d->W, 0, sizeof d->W), memset(d->v, 0, sizeof d->v), memset(d->M, 0, sizeof d->M);
          for (int t = own->from; t < own->to; t++) memcpy(d->y[t], dy + row_of(x, n, own->origin + t, h) * V, V * sizeof(real));
          inside_back(x, n, h, own, d, to);
          for (int j = buckets - 1; j >= 0; j--) {
            long count = before(x, own);
            if (!is_full(x, count, j)) continue;
            bucket_back(x, n, h, own, d, j, *--old, G[bucket(x, behind(x, own), begin(x, count, j))], next[j], to);
          }
          writes_back(x, own, d, G);
          scatter(x, n, h, own, d, to, slopes);
          state *turned = G;
          G = next, next = turned;
        }
        for (int j = 0; j < buckets; j++) store_state(after + (head * buckets + j) * K * V, G[j], is_full(x, x->count, j));
      }
    free(own), free(d), free(G < next ? G : next);
  }
  if (!COMPARE) score_back(x, slopes, to, threads);
}
