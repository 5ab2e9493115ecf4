/* The law of a matrix state that compares (`models/ops/scan/native.c`, whose words and layouts these are) in pieces of a few tokens,
   with its backward pass: products of small matrices between a piece's tokens, and with the state before it. With r_t what is left
   at token t of what stood before the piece, r_ts of what was written at token s, and the same, r', for what is compared:

     e_t = v_t - r'_t S^T p_t - sum_{s<t} r'_ts (p_t . w_s) u_s      u_t = b_t e_t
     y_t = r_t S^T q_t + sum_{s<=t} r_ts (q_t . w_s) u_s             S <- r_end S + sum_s r_end,s w_s u_s^T

   Built for REAL, K, V, DECAY (0 none, 1 a head), BEFORE, TIED as there; CHUNK, a multiple of LANES, is a piece's tokens.
   kept [batch, heads, pieces, TALL, BROAD]: the states before all pieces; errors [batch, time, heads, V]: e. */
#include "../../native.h"
#include "../../tiles.h"
#include "delta_piece.h"

static void read_text(const text *x, long n, long h, piece *own, real *y, real *kept, real *errors) {
  for (long p = 0; p * CHUNK < x->time; p++) {
    gather(x, n, h, p, own);
    fetch_piece(x, n, h, p + 1, 0, 0);
    if (kept) memcpy(kept + p * TALL * BROAD, own->S, sizeof own->S);
    find_scores(own);
    const long count = own->count;
    product(own->QP[0], TALL, 1, own->S[0], BROAD, K, 0, 1, own->Z[0], BROAD, 2 * count, BROAD);
    scale_rows(own->Z[0], BROAD, own->reach, 2 * count);
    find_written(own);
    times_lower(own->scores[0], own->U[0], own->Z[0], BROAD, count);
    scatter(x, n, h, own, own->Z[0], BROAD, y, V), scatter(x, n, h, own, own->E[0], BROAD, errors, V);
    scale_rows(own->U[0], BROAD, own->left[count - 1], count);
    product(own->W[0], 1, TALL, own->U[0], BROAD, count, own->S[0], own->reach[count - 1], own->S[0], BROAD, K, BROAD);
  }
}

/* before: the first state, which stays as it is; state: the last one. kept and errors may be NULL. */
void forward(const text *x, const real *before, real *state, real *y, real *kept, real *errors, int threads) {
#pragma omp parallel num_threads(threads)
  {
    piece *own = room(sizeof(piece));
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < x->heads; h++) {
        long place = n * x->heads + h;
        load_state(before + place * K * V, own->S);
        read_text(x, n, h, own, y, kept ? kept + place * pieces_of(x) * TALL * BROAD : 0, errors);
        store_state(state + place * K * V, own->S);
      }
    free(own);
  }
}

/* The gradient of what was written, du, from what the piece's tokens and the state behind it read of it. In turn the last token's
   first: what it compared, earlier ones wrote. F gets the gradients of y and of what the state gave to it. */
static void find_slopes(piece *own, piece_back *d) {
  const long count = own->count;
  product(own->W[0], TALL, 1, d->G[0], BROAD, K, 0, 1, d->U[0], BROAD, count, BROAD);
  scale_rows(d->U[0], BROAD, own->left[count - 1], count);
  turned_times_lower(own->scores[0], d->F[0], d->U[0], BROAD, count);
  for (long c = 0; c < BROAD; c += SIDE * LANES)
    for (long t = count - 1; t >= 0; t--) {
      vec slope[SIDE], rate = {0};
      EACH(j) slope[j] = load(d->U[t] + c + j * LANES);
      for (long s = t + 1; s < count; s++) EACH(j) slope[j] += load(d->F[count + s] + c + j * LANES) * own->scores[count + s][t];
      EACH(j) {
        rate += slope[j] * load(own->E[t] + c + j * LANES);
        vec error = slope[j] * own->b[t];
        store(d->U[t] + c + j * LANES, error);
        store(d->F[count + t] + c + j * LANES, -error);
      }
      d->b[t] = (c ? d->b[t] : 0) + sum(rate);
    }
}

/* Gradients of the gates: a product over the gates from one token to another gives its own to each of these. */
static void find_forgets(const piece *own, piece_back *d) {
  const long count = own->count;
  vec reached[CHUNK / LANES]; /* of all that later tokens were given, by the token that wrote it */
  real first = 0;             /* and by the state before the piece */
  for (long i = 0; i < K * BROAD; i += LANES * 4) {
    vec found = {0};
    for (int j = 0; j < 4; j++)
      if (i + j * LANES < K * BROAD) found += load(own->S[0] + i + j * LANES) * load(d->G[0] + i + j * LANES);
    first += sum(found);
  }
  first *= own->reach[count - 1];
  real written[CHUNK] = {0};
  for (long s = 0; s < count; s++) written[s] = dot(own->W[s], d->W[s], TALL);
  for (int c = 0; c < CHUNK / LANES; c++) reached[c] = load(written + c * LANES);
  for (long u = count - 1; u >= 0; u--) {
    long compared = count + u + BEFORE;
    first += dot(own->QP[u], d->QP[u], TALL);
    if (compared < 2 * count) first += dot(own->QP[compared], d->QP[compared], TALL);
    vec found = {0};
    for (int c = 0; c < CHUNK / LANES; c++) {
      reached[c] += load(own->scores[u] + c * LANES) * load(d->scores[u] + c * LANES);
      if (compared < 2 * count) reached[c] += load(own->scores[compared] + c * LANES) * load(d->scores[compared] + c * LANES);
      found += choose(LANE + c * LANES < (WHOLE)u, reached[c], (vec){0});
    }
    d->a[u] = first + sum(found);
  }
}

/* One piece backward: G is the gradient of the state behind it on entry and of the state before it on return. */
static void piece_back_over(piece *own, piece_back *d) {
  const long count = own->count, rows = 2 * count;
  find_slopes(own, d);
  transpose(own->U[0], BROAD, d->turned, CHUNK, CHUNK, BROAD);
  product(d->F[0], BROAD, 1, d->turned, CHUNK, V, 0, 1, d->scores[0], CHUNK, rows, CHUNK);
  scale_rows(d->F[0], BROAD, own->reach, rows), scale_rows(own->U[0], BROAD, own->left[count - 1], count);
  transpose(own->S[0], BROAD, d->turned, TALL, TALL, BROAD);
  product(d->F[0], BROAD, 1, d->turned, TALL, V, 0, 1, d->QP[0], TALL, rows, TALL);
  transpose(d->G[0], BROAD, d->turned, TALL, TALL, BROAD);
  product(own->U[0], BROAD, 1, d->turned, TALL, V, 0, 1, d->W[0], TALL, count, TALL);
  if (DECAY) find_forgets(own, d);
  product(own->QP[0], 1, TALL, d->F[0], BROAD, rows, d->G[0], own->reach[count - 1], d->G[0], BROAD, K, BROAD);
  for (long t = 0; t < rows; t++)
    for (int s = 0; s < CHUNK; s += LANES) store(d->scores[t] + s, load(d->scores[t] + s) * load(own->left[t] + s));
  for (long first = 0; first < rows; first += count) {
    times_lower(d->scores[first], own->W[0], d->QP[first], TALL, count);
    turned_times_lower(d->scores[first], own->QP[first], d->W[0], TALL, count);
  }
}

static void read_back(const text *x, long n, long h, piece *own, piece_back *d, const real *kept, const real *errors, const real *dy,
                      const gradients *to) {
  for (long p = pieces_of(x) - 1; p >= 0; p--) {
    gather(x, n, h, p, own);
    memcpy(own->S, kept + p * TALL * BROAD, sizeof own->S);
    fetch_piece(x, n, h, p - 1, dy, errors);
    if (p) fetch(kept + (p - 1) * TALL * BROAD, TALL * BROAD);
    find_scores(own);
    for (long t = 0; t < own->count; t++) {
      long row = row_of(x, n, own->start + t, h) * V;
      memcpy(d->F[t], dy + row, V * sizeof(real));
      memcpy(own->E[t], errors + row, V * sizeof(real));
      for (int c = 0; c < BROAD; c += LANES) store(own->U[t] + c, load(own->E[t] + c) * own->b[t]);
    }
    piece_back_over(own, d);
    const long count = own->count;
    if (TIED)
      for (long i = 0; i < count * TALL; i += LANES) store(d->W[0] + i, load(d->W[0] + i) + load(d->QP[count] + i));
    scatter(x, n, h, own, d->QP[0], TALL, to->q, K), scatter(x, n, h, own, d->W[0], TALL, to->w, K);
    if (!TIED) scatter(x, n, h, own, d->QP[count], TALL, to->p, K);
    scatter(x, n, h, own, d->U[0], BROAD, to->v, V);
    scatter(x, n, h, own, d->b, 1, to->b, 1);
    if (DECAY) scatter(x, n, h, own, d->a, 1, to->a, 1);
  }
}

/* state: the gradient of the last state on entry, of the first on return; to->a is the gradient of log a. */
void backward(const text *x, const real *kept, const real *errors, const real *dy, real *state, const gradients *to, int threads) {
#pragma omp parallel num_threads(threads)
  {
    piece *own = room(sizeof(piece));
    piece_back *d = room(sizeof(piece_back));
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long h = 0; h < x->heads; h++) {
        long place = n * x->heads + h;
        load_state(state + place * K * V, d->G);
        read_back(x, n, h, own, d, kept + place * pieces_of(x) * TALL * BROAD, errors, dy, to);
        store_state(state + place * K * V, d->G);
      }
    free(own), free(d);
  }
}
