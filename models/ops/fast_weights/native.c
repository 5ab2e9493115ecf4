/* Large-chunk test-time training, forward and back, a head of a row after the other. REAL float or double; LANES numbers a vector,
   which divides the widths.

     f(x) = (silu(x W_0) * (x W_2)) W_1      G <- sum_s r_s d/dW (v_s . f(k_s)) + mu G      W <- W + G, columns at their lengths

   Weights of a head [SIZE = 3 d n]: W_0 and W_2 side by side [d, 2 n], then W_1 [n, d]; so lie G and what is added to it, and
   lengths [2 n + d] of their columns. q, k, v, y [b, t, h, d]; rates [b, t, h, 3]; momentum [b, t, h] or NULL. A text comes in
   pieces, each in one chunk. The backward pass begins from the weights and G before each piece, and makes the rest again. */
#include "../native.h"
#include "../tiles.h"
#include "steps.h"

typedef struct {
  long batch, time, heads, width, hidden, chunk, place;
  const real *q, *k, *v, *rates, *momentum, *lengths;
} text;

/* Of one head of one row: its tokens lie `apart`, SIZE numbers are its weights. */
typedef struct {
  long d, n, apart, size, heads;
  const real *q, *k, *v, *rates, *momentum, *lengths;
} head;

typedef struct {
  real *both, *hidden, *keys, *values, *turned0, *turned1, *spare; /* [c, 2 n], [c, n], [c, 2 n], [c, n], weights turned, [c, 2 n] */
} room;

static long pieces_of(const text *in) { return (in->place % in->chunk + in->time + in->chunk - 1) / in->chunk; }

/* The tokens of the piece that begins at token `start`. */
static long tokens_of(const text *in, long start) {
  long open = in->chunk - (in->place + start) % in->chunk;
  return open < in->time - start ? open : in->time - start;
}

static head head_of(const text *in, long m) {
  long d = in->width, n = in->hidden, at = m / in->heads * in->time * in->heads + m % in->heads;
  return (head){d, n, in->heads * d, 3 * d * n, in->heads, in->q + at * d, in->k + at * d, in->v + at * d, in->rates + at * 3,
                in->momentum ? in->momentum + at : 0, in->lengths + m % in->heads * (2 * n + d)};
}

static long room_for(const text *in) {
  long c = in->chunk < in->time ? in->chunk : in->time;
  return c * (8 * in->hidden) + 3 * in->width * in->hidden;
}

static room room_in(const text *in, real *own) {
  long c = in->chunk < in->time ? in->chunk : in->time, n = in->hidden, weights = in->width * n;
  real *hidden = own + 2 * c * n, *keys = hidden + c * n, *values = keys + 2 * c * n, *turned = values + c * n;
  return (room){own, hidden, keys, values, turned, turned + 2 * weights, turned + 3 * weights};
}

/* What c tokens from `start` on teach these weights: both, hidden, keys and values. turned1 is W_1^T. */
static void learn(const head *at, long start, long c, const real *own, const room *r) {
  long d = at->d, n = at->n;
  product(at->k + start * at->apart, at->apart, 1, own, 2 * n, d, 0, 0, r->both, 2 * n, c, 2 * n);
  product(at->v + start * at->apart, at->apart, 1, r->turned1, n, d, 0, 0, r->hidden, n, c, n);
  taught(r->both, r->hidden, at->rates + start * at->heads * 3, at->heads * 3, c, n, r->keys, r->values);
}

/* Behind a full chunk: own and before (G) move on, added and moving begin again. */
static void move(const head *at, real *own, real *before, real *added, real share) {
  long d = at->d, n = at->n;
  for (long i = 0; i < at->size; i++) before[i] = added[i] + share * before[i], own[i] += before[i];
  rescale(own, d, 2 * n, at->lengths), rescale(own + 2 * d * n, n, d, at->lengths + 2 * n);
}

static void forward_piece(const head *at, long start, long c, int fresh, const real *own, real *added, real *y, const room *r) {
  long d = at->d, n = at->n, first = start * at->apart;
  const real *down = own + 2 * d * n;
  transpose(down, d, r->turned1, n, n, d);
  learn(at, start, c, own, r);
  product(at->k + first, 1, at->apart, r->keys, 2 * n, c, fresh ? 0 : added, 1, added, 2 * n, d, 2 * n);
  real *added1 = added + 2 * d * n;
  product(r->values, 1, n, at->v + first, at->apart, c, fresh ? 0 : added1, 1, added1, d, n, d);
  product(at->q + first, at->apart, 1, own, 2 * n, d, 0, 0, r->both, 2 * n, c, 2 * n);
  gated(r->both, c, n, r->hidden);
  product(r->hidden, n, 1, down, d, n, 0, 0, y + first, at->apart, c, d);
}

/* own, before, added [b h, SIZE] and moving [b h]: those of the text's beginning on entry, of its end on return. Kept, unless NULL,
   are own and before in front of each piece, before behind the last, and the chunk's mean momentum behind each. */
void forward(const text *in, real *own, real *before, real *added, real *moving, real *y, real *kept_own, real *kept_before,
             real *kept_share, int threads) {
  long pieces = pieces_of(in), size = 3 * in->width * in->hidden;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long m = 0; m < in->batch * in->heads; m++) {
    real *space = malloc(room_for(in) * sizeof(real)), *w = own + m * size, *g = before + m * size, *sum = added + m * size;
    head at = head_of(in, m);
    room r = room_in(in, space);
    for (long piece = 0, start = 0, c; piece < pieces; piece++, start += c) {
      c = tokens_of(in, start);
      if (kept_own) {
        memcpy(kept_own + (m * pieces + piece) * size, w, size * sizeof(real));
        memcpy(kept_before + (m * (pieces + 1) + piece) * size, g, size * sizeof(real));
      }
      forward_piece(&at, start, c, (in->place + start) % in->chunk == 0, w, sum, y + (at.q - in->q), &r);
      for (long t = start; at.momentum && t < start + c; t++) moving[m] += at.momentum[t * at.heads];
      if ((in->place + start + c) % in->chunk) continue;
      real share = moving[m] / in->chunk;
      move(&at, w, g, sum, share), memset(sum, 0, size * sizeof(real)), moving[m] = 0;
      if (kept_own) kept_share[m * pieces + piece] = share;
    }
    if (kept_own) memcpy(kept_before + (m * (pieces + 1) + pieces) * size, g, size * sizeof(real));
    free(space);
  }
}

/* Gradients: of the last state on entry and of the first on return; lengths [b h, 2 n + d] are zero on entry. */
typedef struct {
  real *own, *before, *added, *moving, *q, *k, *v, *rates, *momentum, *lengths;
} gradients;

/* Back over `move`: own and before as they were in front of it, `after` G behind it; gradients of this head. */
static void move_back(const head *at, const real *own, const real *before, const real *after, real share, long chunk,
                      const gradients *g, real *spare) {
  long d = at->d, n = at->n;
  for (long i = 0; i < at->size; i++) spare[i] = own[i] + after[i];
  rescale_back(spare, d, 2 * n, at->lengths, g->own, g->lengths);
  rescale_back(spare + 2 * d * n, n, d, at->lengths + 2 * n, g->own + 2 * d * n, g->lengths + 2 * n);
  vec along = {0};
  for (long i = 0; i < at->size; i += LANES) {
    vec step = load(g->own + i) + load(g->before + i);
    along += step * load(before + i);
    store(g->added + i, step), store(g->before + i, step * share);
  }
  *g->moving = sum(along) / chunk;
}

/* Back over what a piece read. */
static void read_back(const head *at, long start, long c, const real *own, const real *dy, const gradients *g, const room *r) {
  long d = at->d, n = at->n, first = start * at->apart, apart = at->apart;
  real *down = g->own + 2 * d * n;
  product(at->q + first, apart, 1, own, 2 * n, d, 0, 0, r->both, 2 * n, c, 2 * n);
  product(dy + first, apart, 1, r->turned1, n, d, 0, 0, r->values, n, c, n);
  gated_back(r->both, r->values, c, n, r->hidden);
  product(r->hidden, 1, n, dy + first, apart, c, down, 1, down, d, n, d);
  product(at->q + first, 1, apart, r->both, 2 * n, c, g->own, 1, g->own, 2 * n, d, 2 * n);
  product(r->both, 2 * n, 1, r->turned0, d, 2 * n, 0, 0, g->q + first, apart, c, d);
}

/* Back over what a piece taught; spare has room for its dkeys and for the gradient of G turned. */
static void learn_back(const head *at, long start, long c, const real *own, const gradients *g, const room *r, real *turned) {
  long d = at->d, n = at->n, first = start * at->apart, apart = at->apart, rate = start * at->heads * 3;
  real *k = g->k + first, *v = g->v + first, *down = g->own + 2 * d * n;
  const real *added1 = g->added + 2 * d * n, *down_own = own + 2 * d * n;
  learn(at, start, c, own, r);
  transpose(g->added, 2 * n, turned, d, d, 2 * n);
  product(r->keys, 2 * n, 1, turned, d, 2 * n, 0, 0, k, apart, c, d);
  product(r->values, n, 1, added1, d, n, 0, 0, v, apart, c, d);
  product(at->k + first, apart, 1, g->added, 2 * n, d, 0, 0, r->spare, 2 * n, c, 2 * n);
  transpose(added1, d, turned, n, n, d);
  product(at->v + first, apart, 1, turned, n, d, 0, 0, r->values, n, c, n);
  taught_back(r->both, r->hidden, at->rates + rate, at->heads * 3, c, n, r->spare, r->values, g->rates + rate);
  product(r->both, 2 * n, 1, r->turned0, d, 2 * n, k, 1, k, apart, c, d);
  product(at->k + first, 1, apart, r->both, 2 * n, c, g->own, 1, g->own, 2 * n, d, 2 * n);
  product(r->hidden, n, 1, down_own, d, n, v, 1, v, apart, c, d);
  product(r->hidden, 1, n, at->v + first, apart, c, down, 1, down, d, n, d);
}

static gradients of_head(const gradients *all, const text *in, const head *at, long m) {
  long tokens = at->q - in->q, rates = at->rates - in->rates, size = at->size;
  return (gradients){all->own + m * size, all->before + m * size, all->added + m * size, all->moving + m, all->q + tokens,
                     all->k + tokens, all->v + tokens, all->rates + rates, all->momentum ? all->momentum + rates / 3 : 0,
                     all->lengths + m * (2 * at->n + at->d)};
}

void backward(const text *in, const real *kept_own, const real *kept_before, const real *kept_share, const real *dy,
              const gradients *all_of_them, int threads) {
  long pieces = pieces_of(in), size = 3 * in->width * in->hidden;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long m = 0; m < in->batch * in->heads; m++) {
    real *space = malloc((room_for(in) + 2 * size) * sizeof(real)), *spare = space + room_for(in);
    head at = head_of(in, m);
    room r = room_in(in, space);
    gradients g = of_head(all_of_them, in, &at, m);
    for (long piece = pieces - 1, stop = in->time, start; piece >= 0; piece--, stop = start) {
      const real *own = kept_own + (m * pieces + piece) * size, *before = kept_before + (m * (pieces + 1) + piece) * size;
      start = piece ? piece * in->chunk - in->place % in->chunk : 0;
      if ((in->place + stop) % in->chunk == 0)
        move_back(&at, own, before, before + size, kept_share[m * pieces + piece], in->chunk, &g, spare);
      transpose(own, 2 * at.n, r.turned0, at.d, at.d, 2 * at.n);
      transpose(own + 2 * at.d * at.n, at.d, r.turned1, at.n, at.n, at.d);
      read_back(&at, start, stop - start, own, dy + (at.q - in->q), &g, &r);
      learn_back(&at, start, stop - start, own, &g, &r, spare);
      for (long t = start; g.momentum && t < stop; t++) g.momentum[t * at.heads] = *g.moving;
      if ((in->place + start) % in->chunk == 0) memset(g.added, 0, size * sizeof(real));
    }
    free(space);
  }
}
