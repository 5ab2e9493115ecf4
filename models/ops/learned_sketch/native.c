/* The learned sketches of many vectors and their backward pass (recurrence.py has the law):

     g(x) = sqrt(r) tanh(f_1(x) * f_2(x) / sqrt(r)),   f_i(x) = D'_i gelu(U'_i [LN(y) | 1]),   y = D_i gelu(U_i [x | 1])

   REAL float or double; LANES what a register holds.
   A tile's vectors stand side by side in columns; its hidden units never leave the cache, and the backward pass makes them again.
   gelu(x) = x sigmoid(c (x + 0.0447 x^3)); the caller has multiplied U and U' by c, and divided D and D' by it.
   Layouts: x [rows, width]; up [2, hidden, width + 1]; down, next_down [2, sketch, hidden]; next_up [2, hidden, sketch + 1]. */
#include "../native.h"

#include "../tiles.h"

#define TILE (8 * LANES)
#define CUBE ((real)0.01755953943815845) /* 0.044715 / c^2, c = 2 sqrt(2 / pi) */
#define EPS ((real)1e-5)

typedef struct {
  long rows, width, hidden, sketch;
  const real *x, *up, *down, *next_up, *next_down;
} sketches;

/* What one of the two networks leaves of a tile: its small values in columns, hidden units and their slopes for the way back. */
typedef struct {
  real *active, *next_active, *slope, *next_slope, *y, *scale, *out;
} network;

typedef struct {
  real *rows, *x, *made, *turned, *gradient, *dy, *dhidden, *dx; /* the tile's inputs in rows and in columns; room */
  network net[2];
} desk;

static long wider(long a, long b) { return a > b ? a : b; }

/* The next `size` numbers of `at`; NULL where only their number is counted. */
static real *next(real *at, long *total, long size) {
  real *place = at ? at + *total : 0;
  *total += size;
  return place;
}

/* The places of a desk in `at`. Returns how many numbers it has. */
static long lay_out(const sketches *s, desk *d, real *at, int back) {
  long in = UP(s->width + 1) * TILE, out = UP(s->sketch + 1) * TILE, hidden = s->hidden * TILE, total = 0;
  d->rows = next(at, &total, in), d->x = next(at, &total, in), d->dx = next(at, &total, in);
  d->made = next(at, &total, out), d->gradient = next(at, &total, out), d->dy = next(at, &total, out);
  d->turned = next(at, &total, wider(in, out)), d->dhidden = next(at, &total, hidden);
  for (int i = 0; i < 2; i++) {
    network *n = d->net + i;
    n->y = next(at, &total, out), n->out = next(at, &total, out), n->scale = next(at, &total, TILE);
    n->active = n->next_active = d->dhidden, n->slope = n->next_slope = 0;
    if (!back) continue; /* forward, hidden units are nobody's any more */
    n->active = next(at, &total, hidden), n->slope = next(at, &total, hidden);
    n->next_active = next(at, &total, hidden), n->next_slope = next(at, &total, hidden);
  }
  return total;
}

/* c gelu(x / c) in place, and its slope where that is asked for */
static void gelu(real *x, real *slope, long n) {
  for (long i = 0; i < n; i += LANES) {
    vec z = load(x + i), cube = z * z * z * CUBE, share = sigmoid(z + cube);
    store(x + i, z * share);
    if (slope) store(slope + i, share * (1 + (1 - share) * (z + 3 * cube)));
  }
}

/* Columns y [sketch, TILE] to mean 0 and variance 1; below them a row of ones. */
static void normalise(real *y, real *scale, long sketch) {
  for (long c = 0; c < TILE; c += LANES) {
    vec mean = {0}, square = {0};
    for (long k = 0; k < sketch; k++) mean += load(y + k * TILE + c);
    mean /= (real)sketch;
    for (long k = 0; k < sketch; k++) {
      vec away = load(y + k * TILE + c) - mean;
      store(y + k * TILE + c, away), square += away * away;
    }
    square = square / (real)sketch + EPS;
    for (int i = 0; i < LANES; i++) square[i] = 1 / (sizeof(real) == 4 ? (real)sqrtf(square[i]) : (real)sqrt(square[i]));
    for (long k = 0; k < sketch; k++) store(y + k * TILE + c, load(y + k * TILE + c) * square);
    store(scale + c, square), store(y + sketch * TILE + c, all(1));
  }
}

/* The gradient of `normalise`, in place of that of its output y. */
static void normalise_back(real *dy, const real *y, const real *scale, long sketch) {
  for (long c = 0; c < TILE; c += LANES) {
    vec mean = {0}, along = {0};
    for (long k = 0; k < sketch; k++) mean += load(dy + k * TILE + c), along += load(dy + k * TILE + c) * load(y + k * TILE + c);
    mean /= (real)sketch, along /= (real)sketch;
    for (long k = 0; k < sketch; k++)
      store(dy + k * TILE + c, (load(dy + k * TILE + c) - mean - load(y + k * TILE + c) * along) * load(scale + c));
  }
}

/* Rows first .. of `from` [rows, width] into `to` [TILE, wide], zeros below them. Returns how many there are. */
static long take(const real *from, long first, long rows, long width, real *to, long wide) {
  long count = rows - first < TILE ? rows - first : TILE;
  for (long n = 0; n < count; n++) memcpy(to + n * wide, from + (first + n) * width, width * sizeof(real));
  for (long n = count; n < TILE; n++) memset(to + n * wide, 0, width * sizeof(real));
  return count;
}

/* Columns `from` [width, TILE] out into rows first .. of `to` [rows, width]; `turned` is room. */
static void give(const real *from, real *turned, long wide, real *to, long first, long count, long width) {
  transpose(from, TILE, turned, wide, wide, TILE);
  for (long n = 0; n < count; n++) memcpy(to + (first + n) * width, turned + n * wide, width * sizeof(real));
}

/* Both networks over a tile, and tanh's output into d->made. Returns how many of its vectors there are. */
static long run(const sketches *s, desk *d, long first) {
  long in = s->width + 1, hidden = s->hidden, sketch = s->sketch, wide = UP(in);
  long count = take(s->x, first, s->rows, s->width, d->rows, wide);
  for (long n = 0; n < TILE; n++) d->rows[n * wide + s->width] = 1;
  transpose(d->rows, wide, d->x, TILE, TILE, wide);
  for (int i = 0; i < 2; i++) {
    network *n = d->net + i;
    product(s->up + i * hidden * in, in, 1, d->x, TILE, in, 0, 1, n->active, TILE, hidden, TILE);
    gelu(n->active, n->slope, hidden * TILE);
    product(s->down + i * sketch * hidden, hidden, 1, n->active, TILE, hidden, 0, 1, n->y, TILE, sketch, TILE);
    normalise(n->y, n->scale, sketch);
    product(s->next_up + i * hidden * (sketch + 1), sketch + 1, 1, n->y, TILE, sketch + 1, 0, 1, n->next_active, TILE, hidden, TILE);
    gelu(n->next_active, n->next_slope, hidden * TILE);
    product(s->next_down + i * sketch * hidden, hidden, 1, n->next_active, TILE, hidden, 0, 1, n->out, TILE, sketch, TILE);
  }
  real least = 1 / (real)sqrt((double)sketch);
  for (long i = 0; i < sketch * TILE; i += LANES)
    store(d->made + i, tanh_of(load(d->net[0].out + i) * load(d->net[1].out + i) * least));
  return count;
}

void forward(const sketches *s, real *y, int threads) {
  long tiles = (s->rows + TILE - 1) / TILE, wide = UP(s->sketch);
  real root = (real)sqrt((double)s->sketch);
#pragma omp parallel num_threads(threads) if (tiles > 1)
  {
    desk d;
    real *own = calloc(lay_out(s, &d, 0, 0), sizeof(real)); /* what fills rows up to a register stays zero */
    lay_out(s, &d, own, 0);
#pragma omp for schedule(static)
    for (long t = 0; t < tiles; t++) {
      long count = run(s, &d, t * TILE);
      for (long i = 0; i < s->sketch * TILE; i += LANES) store(d.made + i, load(d.made + i) * root);
      give(d.made, d.turned, wide, y, t * TILE, count, s->sketch);
    }
    free(own);
  }
}

/* Sums of gradients, [2, hidden, .] each, rows filled up to a register; down's stand as their weights do turned. */
typedef struct {
  real *up, *down, *next_up, *next_down;
} gradients;

/* One network's part: from the gradient d->gradient [sketch, TILE] of its output to that of x, which is added to d->dx. */
static void network_back(const sketches *s, desk *d, int i, gradients to) {
  long in = s->width + 1, hidden = s->hidden, sketch = s->sketch, few = UP(sketch), one = UP(sketch + 1), wide = UP(in);
  network *n = d->net + i;
  transpose(d->gradient, TILE, d->turned, few, few, TILE);
  real *sum = to.next_down + i * hidden * few;
  product(n->next_active, TILE, 1, d->turned, few, TILE, sum, 1, sum, few, hidden, few);
  product(s->next_down + i * sketch * hidden, 1, hidden, d->gradient, TILE, sketch, 0, 1, d->dhidden, TILE, hidden, TILE);
  for (long j = 0; j < hidden * TILE; j += LANES) store(d->dhidden + j, load(d->dhidden + j) * load(n->next_slope + j));
  transpose(n->y, TILE, d->turned, one, one, TILE);
  sum = to.next_up + i * hidden * one;
  product(d->dhidden, TILE, 1, d->turned, one, TILE, sum, 1, sum, one, hidden, one);
  product(s->next_up + i * hidden * (sketch + 1), 1, sketch + 1, d->dhidden, TILE, hidden, 0, 1, d->dy, TILE, sketch, TILE);
  normalise_back(d->dy, n->y, n->scale, sketch);
  transpose(d->dy, TILE, d->turned, few, few, TILE);
  sum = to.down + i * hidden * few;
  product(n->active, TILE, 1, d->turned, few, TILE, sum, 1, sum, few, hidden, few);
  product(s->down + i * sketch * hidden, 1, hidden, d->dy, TILE, sketch, 0, 1, d->dhidden, TILE, hidden, TILE);
  for (long j = 0; j < hidden * TILE; j += LANES) store(d->dhidden + j, load(d->dhidden + j) * load(n->slope + j));
  sum = to.up + i * hidden * wide;
  product(d->dhidden, TILE, 1, d->rows, wide, TILE, sum, 1, sum, wide, hidden, wide);
  product(s->up + i * hidden * in, 1, in, d->dhidden, TILE, hidden, i ? d->dx : 0, 1, d->dx, TILE, s->width, TILE);
}

/* dg, dx as g and x; sums of gradients for each of `pieces` of the tiles, whatever the number of threads, begun with zeros. */
void backward(const sketches *s, const real *dg, real *dx, real *dup, real *ddown, real *dnext_up, real *dnext_down, long pieces,
              int threads) {
  long tiles = (s->rows + TILE - 1) / TILE, few = UP(s->sketch), both = 2 * s->hidden, wide = UP(s->width + 1);
#pragma omp parallel num_threads(threads) if (pieces > 1)
  {
    desk d;
    real *own = calloc(lay_out(s, &d, 0, 1), sizeof(real));
    lay_out(s, &d, own, 1);
#pragma omp for schedule(static)
    for (long p = 0; p < pieces; p++) {
      gradients to = {dup + p * both * wide, ddown + p * both * few, dnext_up + p * both * UP(s->sketch + 1),
                      dnext_down + p * both * few};
      for (long t = tiles * p / pieces; t < tiles * (p + 1) / pieces; t++) {
        long count = run(s, &d, t * TILE);
        take(dg, t * TILE, s->rows, s->sketch, d.turned, few);
        transpose(d.turned, few, d.dy, TILE, TILE, few);
        for (long i = 0; i < s->sketch * TILE; i += LANES) {
          vec made = load(d.made + i);
          store(d.made + i, load(d.dy + i) * (1 - made * made));
        }
        for (int i = 0; i < 2; i++) {
          for (long j = 0; j < s->sketch * TILE; j += LANES) store(d.gradient + j, load(d.made + j) * load(d.net[1 - i].out + j));
          network_back(s, &d, i, to);
        }
        give(d.dx, d.turned, UP(s->width), dx, t * TILE, count, s->width);
      }
    }
    free(own);
  }
}
