/* SiLU of the short convolution, in parts of which some are brought to unit length head by head, forward and backward:

     a_t = sum_j w_j x_{t-j} + bias,   h = a sigmoid(a),   y = h, or z r h with r = (|h|^2 + eps)^-1/2 and a scale z
     dh = dy, or z (r dy - r^3 (h . dy) h);   da = dh (s + h (1 - s)) with s = sigmoid(a)
     dx_t = sum_j w_j da_{t+j},   dw_j = sum_t da_t x_{t-j},   dbias = sum_t da_t

   Of the forward pass nothing is kept but x: a and h are computed again. A text goes back in strips of STRIP tokens, so that their
   da lie in the first cache between the two halves of the way. LANES divides the width of every group. The weights' gradients are
   [batch, KERNEL + 1, width], the bias' last; other layouts as in `text.h`. */
#include "text.h"

#define STRIP 16
#define WIDEST 1024 /* channels of a group */

typedef struct { /* channels that go together: a head, or some of a part without heads */
  long first, width, part, offset, stride, is_unit;
  double scale; /* of a head of unit length */
} group;

typedef struct {
  const group *groups;
  long count;
  real *const *parts; /* y or dy, each [batch, time, stride] */
  real eps;
} outputs;

static inline real *place(const outputs *out, const group *g, long n, long time, long t) {
  return out->parts[g->part] + (n * time + t) * g->stride + g->offset;
}

typedef struct { /* the inputs that a token hears, the newest last */
  const real *row[KERNEL];
} window;

static inline window heard(const text *in, long n, long t) {
  window found;
  for (int k = 0; k < KERNEL; k++) found.row[k] = input(in, n, t + k - (KERNEL - 1), 0);
  return found;
}

static inline __attribute__((always_inline)) vec convolution(const text *in, const window *from, long c) {
  vec sum = in->bias ? load(in->bias + c) : (vec){0};
  for (int k = 0; k < KERNEL; k++) sum += load(from->row[k] + c) * load(in->weight + k * in->width + c);
  return sum;
}

static inline real inverse_root(real x) { return 1 / (sizeof(real) == 4 ? (real)sqrtf(x) : (real)sqrt(x)); }

static void group_forward(const text *in, const group *g, const window *from, real eps, real *y) {
  vec square = {0};
  for (long c = 0; c < g->width; c += LANES) {
    vec a = convolution(in, from, g->first + c), h = a * quick_sigmoid(a);
    square += h * h;
    store(y + c, h);
  }
  if (!g->is_unit) return;
  real scale = (real)g->scale * inverse_root(sum(square) + eps);
  for (long c = 0; c < g->width; c += LANES) store(y + c, load(y + c) * scale);
}

void forward(const text *in, const outputs *out, int threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long n = 0; n < in->batch; n++)
    for (long t = 0; t < in->time; t++) {
      window from = heard(in, n, t);
      for (const group *g = out->groups; g < out->groups + out->count; g++)
        group_forward(in, g, &from, out->eps, place(out, g, n, in->time, t));
    }
}

static void group_slope(const text *in, const group *g, const window *from, real eps, const real *dy, real *da) {
  real h[WIDEST], slope[WIDEST];
  vec square = {0}, along = {0};
  for (long c = 0; c < g->width; c += LANES) {
    vec a = convolution(in, from, g->first + c), s = quick_sigmoid(a), now = a * s, d = load(dy + c);
    square += now * now, along += now * d;
    store(h + c, now), store(slope + c, s + now * (1 - s));
  }
  real r = 1, less = 0;
  if (g->is_unit) {
    r = inverse_root(sum(square) + eps), less = (real)g->scale * sum(along) * r * r * r;
    r *= (real)g->scale;
  }
  for (long c = 0; c < g->width; c += LANES) store(da + c, (load(dy + c) * r - load(h + c) * less) * load(slope + c));
}

/* Gradients of `count` inputs of LANES channels, rows `apart`, from the da of those that hear them: da[i] and the KERNEL - 1 behind
   it, rows `wide` apart. The sums of the weights' gradients go on. */
static inline void inputs_back(const text *in, const real *weights, const real *own, long count, const real *da, long wide,
                               real *dx, real *dweight) {
  vec weight[KERNEL], total[KERNEL];
  for (int k = 0; k < KERNEL; k++) weight[k] = load(weights + k * in->width), total[k] = load(dweight + k * in->width);
  for (long i = 0; i < count; i++, own += in->width, dx += in->width, da += wide) {
    vec here = load(own), slope = {0};
    for (int k = 0; k < KERNEL; k++) { /* the token KERNEL - 1 - k later hears it with weight k */
      vec d = load(da + (KERNEL - 1 - k) * wide);
      slope += d * weight[k], total[k] += d * here;
    }
    store(dx, slope);
  }
  for (int k = 0; k < KERNEL; k++) store(dweight + k * in->width, total[k]);
}

/* The same of the inputs from `first` on, those before the text among them, whose gradients are the state's. */
static void strip_back(const text *in, long n, long c, long first, long count, const real *da, long wide, real *dx, real *dstate,
                       real *dweight) {
  long before = first < 0 ? (-first < count ? -first : count) : 0, at = n * (KERNEL - 1) + KERNEL - 1 + first;
  const real *weights = in->weight + c;
  if (before) inputs_back(in, weights, input(in, n, first, c), before, da, wide, dstate + at * in->width + c, dweight);
  if (before == count) return;
  first += before;
  real *to = dx + (n * in->time + first) * in->width + c;
  inputs_back(in, weights, input(in, n, first, c), count - before, da + before * wide, wide, to, dweight);
}

/* The groups from g to `last`, whose channels lie side by side, of one row of the batch. `da` is room for STRIP + KERNEL - 1 rows. */
static void slab_back(const text *in, const outputs *out, const group *g, const group *last, long n, real *da, real *dx,
                      real *dstate, real *dweight) {
  long begin = g->first, wide = last[-1].first + last[-1].width - begin;
  dweight += n * (KERNEL + 1) * in->width;
  for (int k = 0; k <= KERNEL; k++) memset(dweight + k * in->width + begin, 0, wide * sizeof(real));
  memset(da, 0, (KERNEL - 1) * wide * sizeof(real)); /* nothing before the text hears */
  for (long s = 0; s < in->time + KERNEL - 1; s += STRIP) { /* nothing behind it either */
    long strip = in->time + KERNEL - 1 - s < STRIP ? in->time + KERNEL - 1 - s : STRIP;
    for (long t = s; t < s + strip; t++) {
      real *row = da + (KERNEL - 1 + t - s) * wide;
      if (t >= in->time) {
        memset(row, 0, wide * sizeof(real));
        continue;
      }
      window from = heard(in, n, t);
      for (const group *each = g; each < last; each++)
        group_slope(in, each, &from, out->eps, place(out, each, n, in->time, t), row + each->first - begin);
    }
    for (long c = 0; c < wide; c += LANES) {
      strip_back(in, n, begin + c, s - (KERNEL - 1), strip, da + c, wide, dx, dstate, dweight + begin + c);
      real *bias = dweight + KERNEL * in->width + begin + c;
      vec total = load(bias);
      for (long t = 0; t < strip; t++) total += load(da + (KERNEL - 1 + t) * wide + c);
      store(bias, total);
    }
    memmove(da, da + strip * wide, (KERNEL - 1) * wide * sizeof(real));
  }
}

/* `slabs` counts the groups before each slab, from 0 to all of them. */
void backward(const text *in, const outputs *out, const long *slabs, long count, real *room, real *dx, real *dstate, real *dweight,
              int threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long n = 0; n < in->batch; n++)
    for (long p = 0; p < count; p++) {
      const group *g = out->groups + slabs[p], *last = out->groups + slabs[p + 1];
      real *own = room + (n * in->width + g->first) * (STRIP + KERNEL - 1);
      slab_back(in, out, g, last, n, own, dx, dstate, dweight);
    }
}
