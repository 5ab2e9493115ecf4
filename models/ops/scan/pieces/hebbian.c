/* The law of a matrix state without a comparison (`models/ops/scan/native.c`), in pieces of a few tokens, and its backward pass. With
   r_t what is left at token t of what stood before the piece, r_ts of what was written at token s, and u_t = b_t v_t:

     y_t = r_t S^T q_t + sum_{s<=t} r_ts (q_t . w_s) u_s,    S <- r_end S + sum_s r_end,s w_s u_s^T

   Heads follow one another within a piece, so that a text's rows are read in the order in which they lie. What all heads share where
   they have one query and key (SHARED) is done once a piece: transposes, products of queries and keys, and gradients' way back.
   Gradients of queries and keys are made turned, numbers down and tokens along: the state stands on the side that needs no turning.

   Built for REAL, K, V, DECAY (0 none, 1 a head), SHARED, LANES; CHUNK, a multiple of LANES, is a piece's tokens.
   Layouts: q, w [batch, time, heads or 1, K]; v, y [batch, time, heads, V]; a, b [batch, time, heads]; states [batch, heads, K, V];
   kept [batch, pieces, heads, TALL, BROAD], the states before all pieces; dq, dw [batch, time, heads, K], or groups where SHARED. */
#include "../../native.h"
#include "../../tiles.h"
#include "rows.h"
#include "hebbian_piece.h"

/* One head of a piece: y, and the state behind the piece in `next`. */
static void read_head(const text *x, long n, long h, piece *own, const state S, state next, real *y) {
  const long count = own->count;
  gather_head(x, n, h, own);
  fetch_keys(x, n, own, x->q);
  product(own->Q[0], TALL, 1, S[0], BROAD, K, 0, 1, own->Z[0], BROAD, count, BROAD);
  fetch_keys(x, n, own, x->w), fetch_to_write(y + row_of(x, n, own->start, h) * V, x->heads * V, V, count);
  scale_rows(own->Z[0], BROAD, own->reach, count);
  times_lower(own->scores[0], own->U[0], own->Z[0], BROAD, count);
  scatter(x, n, h, own, own->Z[0], 0, y);
  fetch_values(x, n, own, x->v);
  scale_rows(own->U[0], BROAD, own->left[count - 1], count);
  product(own->W[0], 1, TALL, own->U[0], BROAD, count, S[0], own->reach[count - 1], next[0], BROAD, K, BROAD);
}

/* before: the first state, which stays as it is; after: the last one. */
void forward(const text *x, const real *before, real *after, real *y, real *kept, int threads) {
  const long pieces = pieces_of(x);
#pragma omp parallel num_threads(threads)
  {
    piece *own = room(sizeof(piece));
    state *last = room(sizeof(state));
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long g = 0; g < x->groups; g++)
        for (long p = 0; p < pieces; p++) {
          begin(x, n, p, own);
          for (long h = first_of(x, g); h < first_of(x, g + 1); h++) {
            state *S = (state *)kept + (n * pieces + p) * x->heads + h;
            look_ahead(x, p, 1, h, first_of(x, g), first_of(x, g + 1), own);
            if (!p) memset(*S, 0, sizeof *S), load_state(before + (n * x->heads + h) * K * V, *S);
            if (!SHARED || h == first_of(x, g)) gather_keys(x, n, h, own, 0);
            read_head(x, n, h, own, *S, p + 1 < pieces ? S[x->heads] : *last, y);
            if (p + 1 == pieces) store_state(after + (n * x->heads + h) * K * V, *last);
          }
        }
    free(own), free(last);
  }
}

/* Gradients of the gates: a product over the gates from one token to another gives its own to each of these. d->reads is what each
   token's reading gives of the state before the piece, d->writes what each token's writing gives of the state behind it. */
static void find_forgets(const piece *own, const piece_back *d, const state S, const state G, real *to) {
  const long count = own->count;
  vec reached[CHUNK / LANES], found = {0}; /* reached: of all that later tokens were given, by the token that wrote it */
  for (long i = 0; i < K * BROAD; i += LANES) found += load(S[0] + i) * load(G[0] + i);
  real first = sum(found) * own->reach[count - 1]; /* and by the state before the piece */
  for (int c = 0; c < CHUNK / LANES; c++) reached[c] = load(d->writes + c * LANES);
  for (long u = count - 1; u >= 0; u--) {
    first += d->reads[u], found = (vec){0};
    for (int c = 0; c < CHUNK / LANES; c++) {
      reached[c] += load(own->scores[u] + c * LANES) * load(d->scores[u] + c * LANES);
      found += choose(LANE + c * LANES < (WHOLE)u, reached[c], (vec){0});
    }
    to[u] = first + sum(found);
  }
}

/* dQ and what tokens' readings give of the state before the piece; dW: both turned, and added to what earlier heads gave. */
static void turned_back(piece *own, piece_back *d, const state S, const state G, int gates, int first) {
  const long count = own->count, wide = UP(count);
  for (int j = 0; DECAY && j < V; j++)
    for (long t = 0; t < wide; t += LANES) {
      store(d->FT[j] + t, load(d->FT[j] + t) * load(own->reach + t));
      store(d->UT[j] + t, load(d->UT[j] + t) * load(own->left[count - 1] + t));
    }
  product(G[0], BROAD, 1, d->UT[0], CHUNK, V, first ? 0 : d->WT[0], 1, d->WT[0], CHUNK, K, wide);
  if (!gates) {
    product(S[0], BROAD, 1, d->FT[0], CHUNK, V, first ? 0 : d->QT[0], 1, d->QT[0], CHUNK, K, wide);
    return;
  }
  product(S[0], BROAD, 1, d->FT[0], CHUNK, V, 0, 1, d->T[0], CHUNK, K, wide);
  for (long t = 0; t < wide; t += LANES) {
    vec reads = {0};
    for (int i = 0; i < K; i++) {
      vec read = load(d->T[i] + t);
      reads += read * load(own->QT[i] + t);
      store(d->QT[i] + t, first ? read : load(d->QT[i] + t) + read);
    }
    store(d->reads + t, reads);
  }
}

/* One head of a piece backward: G is the gradient of the state behind it on entry, and of the state before it on return. */
static void head_back(const text *x, long n, long h, piece *own, piece_back *d, const state S, state G, const real *dy,
                      const gradients *to, int first) {
  const long count = own->count, wide = UP(count);
  real *dU = own->Z[0], forgets[CHUNK];
  gather_head(x, n, h, own);
  for (long t = 0; t < count; t++) copy_row(dy + row_of(x, n, own->start + t, h) * V, d->F[t], V);
  transpose(d->F[0], BROAD, d->FT[0], CHUNK, wide, BROAD);
  transpose(own->U[0], BROAD, d->UT[0], CHUNK, wide, BROAD);
  lower_product(d->F[0], BROAD, d->UT[0], V, d->scores[0], count);
  fetch_keys(x, n, own, x->q);
  product(own->W[0], TALL, 1, G[0], BROAD, K, 0, 1, dU, BROAD, count, BROAD);
  fetch_keys(x, n, own, x->w), fetch_to_write(to->v + row_of(x, n, own->start, h) * V, x->heads * V, V, count);
  scale_rows(dU, BROAD, own->left[count - 1], count);
  if (to->a)
    for (long s = 0; s < CHUNK; s++) d->writes[s] = s < count ? dot(dU + s * BROAD, own->U[s], BROAD) : 0;
  turned_times_lower(own->scores[0], d->F[0], dU, BROAD, count);
  if (to->b)
    for (long t = 0; t < count; t++) to->b[row_of(x, n, own->start + t, h)] = dot(dU + t * BROAD, own->E[t], BROAD);
  scatter(x, n, h, own, dU, x->b ? own->b : 0, to->v);
  fetch_values(x, n, own, x->v);
  turned_back(own, d, S, G, to->a != 0, first);
  fetch_values(x, n, own, dy);
  if (to->a) {
    find_forgets(own, d, S, G, forgets);
    for (long t = 0; t < count; t++) to->a[row_of(x, n, own->start + t, h)] = forgets[t];
  }
  for (long t = 0; t < count; t++)
    for (long s = 0; s <= t; s += LANES) {
      vec slope = load(d->scores[t] + s) * load(own->left[t] + s);
      store(d->products[t] + s, first ? slope : load(d->products[t] + s) + slope);
    }
  scale_rows(d->F[0], BROAD, own->reach, count);
  product(own->Q[0], 1, TALL, d->F[0], BROAD, count, G[0], own->reach[count - 1], G[0], BROAD, K, BROAD);
}

/* Gradients of queries and keys within the piece join those that came through states, and go to where the text has them. */
static void keys_back(const text *x, long n, long place, piece *own, piece_back *d, const gradients *to) {
  const long count = own->count, wide = UP(count), heads = SHARED ? x->groups : x->heads;
  const long first = ((n * x->time + own->start) * heads + place) * K;
  fetch_to_write(to->q + first, heads * K, K, count), fetch_to_write(to->w + first, heads * K, K, count);
  for (long t = count; t < wide; t++) memset(d->products[t], 0, sizeof d->products[t]);
  transpose(d->products[0], CHUNK, d->turned[0], CHUNK, wide, wide);
  for (long c = 0; c < wide; c += 2 * LANES) {
    long columns = wide - c < 2 * LANES ? wide - c : 2 * LANES, depth = count < c + columns ? count : c + columns;
    product(own->WT[0], CHUNK, 1, d->turned[0] + c, CHUNK, depth, d->QT[0] + c, 1, d->QT[0] + c, CHUNK, K, columns);
    product(own->QT[0] + c, CHUNK, 1, d->products[c] + c, CHUNK, count - c, d->WT[0] + c, 1, d->WT[0] + c, CHUNK, K, columns);
  }
  real *from[2] = {d->QT[0], d->WT[0]}, *out[2] = {to->q, to->w};
  for (int i = 0; i < 2; i++) {
    transpose(from[i], CHUNK, d->rows[0], TALL, TALL, wide);
    for (long t = 0; t < count; t++)
      copy_row(d->rows[t], out[i] + first + t * heads * K, K);
  }
}

/* change: the gradient of the last state on entry, of the first on return; to->a is the gradient of log a, or NULL. */
void backward(const text *x, const real *kept, const real *dy, real *change, const gradients *to, int threads) {
  const long pieces = pieces_of(x), most = (x->heads + x->groups - 1) / x->groups;
#pragma omp parallel num_threads(threads)
  {
    piece *own = room(sizeof(piece));
    piece_back *d = room(sizeof(piece_back));
    state *G = room(most * sizeof(state));
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long g = 0; g < x->groups; g++) {
        const long begun = first_of(x, g), end = first_of(x, g + 1);
        for (long h = begun; h < end; h++) load_state(change + (n * x->heads + h) * K * V, G[h - begun]);
        for (long p = pieces - 1; p >= 0; p--) {
          begin(x, n, p, own);
          for (long h = begun; h < end; h++) {
            const state *S = (const state *)kept + (n * pieces + p) * x->heads + h;
            look_ahead(x, p, -1, h, begun, end, own);
            if (!SHARED || h == begun) gather_keys(x, n, h, own, 1);
            head_back(x, n, h, own, d, *S, G[h - begun], dy, to, !SHARED || h == begun);
            if (!SHARED || h + 1 == end) keys_back(x, n, SHARED ? g : h, own, d, to);
          }
        }
        for (long h = begun; h < end; h++) store_state(change + (n * x->heads + h) * K * V, G[h - begun]);
      }
    free(own), free(d), free(G);
  }
}
