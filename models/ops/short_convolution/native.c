/* The short convolution y_t = sum_j w_j x_{t-j} + bias and its backward pass, channels side by side in vectors:

     dx_t = sum_j w_j dy_{t+j},   dw_j = sum_t dy_t x_{t-j},   dbias = sum_t dy_t

   REAL float or double   KERNEL inputs a token   LANES a divisor of width
   Layouts: x, y [batch, time, width]; weight [KERNEL, width], the newest input's last; bias [width] or NULL; state, the inputs
   before the text, [batch, KERNEL - 1, width]; the weights' gradients [batch, KERNEL + 1, width], the bias' last. */
#include "text.h"

#define SIDE 4 /* vectors of channels that one walk over the text takes along: whole lines of the cache */
#define EACH_COLUMN(j) for (int j = 0; j < side; j++)

static inline __attribute__((always_inline)) void walk(const text *in, long n, long c, int side, real *y) {
  vec weight[KERNEL][SIDE], bias[SIDE] = {{0}};
  for (int k = 0; k < KERNEL; k++) EACH_COLUMN(j) weight[k][j] = load(in->weight + k * in->width + c + j * LANES);
  if (in->bias) EACH_COLUMN(j) bias[j] = load(in->bias + c + j * LANES);
  for (long t = 0; t < in->time; t++) {
    vec sum[SIDE];
    EACH_COLUMN(j) sum[j] = bias[j];
    for (int k = 0; k < KERNEL; k++) {
      const real *from = input(in, n, t + k - (KERNEL - 1), c);
      EACH_COLUMN(j) sum[j] += load(from + j * LANES) * weight[k][j];
    }
    EACH_COLUMN(j) store(y + (n * in->time + t) * in->width + c + j * LANES, sum[j]);
  }
}

static inline __attribute__((always_inline)) void walk_back(const text *in, long n, long c, int side, const real *dy, real *dx,
                                                            real *dstate, real *dweight) {
  vec weight[KERNEL][SIDE], sums[KERNEL + 1][SIDE];
  memset(sums, 0, sizeof sums);
  for (int k = 0; k < KERNEL; k++) EACH_COLUMN(j) weight[k][j] = load(in->weight + k * in->width + c + j * LANES);
  for (long t = -(KERNEL - 1); t < in->time; t++) { /* inputs, those before the text first */
    vec slope[SIDE] = {{0}};
    const real *own = input(in, n, t, c);
    for (int k = 0; k < KERNEL; k++) { /* token t + KERNEL - 1 - k hears input t with weight k */
      long heard = t + KERNEL - 1 - k;
      if (heard < 0 || heard >= in->time) continue;
      const real *from = dy + (n * in->time + heard) * in->width + c;
      EACH_COLUMN(j) {
        vec d = load(from + j * LANES);
        slope[j] += d * weight[k][j];
        sums[k][j] += d * load(own + j * LANES);
        if (k == KERNEL - 1) sums[KERNEL][j] += d;
      }
    }
    real *to = t < 0 ? dstate + (n * (KERNEL - 1) + KERNEL - 1 + t) * in->width + c : dx + (n * in->time + t) * in->width + c;
    EACH_COLUMN(j) store(to + j * LANES, slope[j]);
  }
  for (int k = 0; k <= KERNEL; k++)
    EACH_COLUMN(j) store(dweight + (n * (KERNEL + 1) + k) * in->width + c + j * LANES, sums[k][j]);
}

#define EACH_BLOCK(one, ...)                                                                           \
  _Pragma("omp parallel for collapse(2) schedule(static) num_threads(threads)")                         \
  for (long n = 0; n < in->batch; n++)                                                                  \
    for (long c = 0; c < in->width; c += SIDE * LANES) {                                                \
      if (c + SIDE * LANES <= in->width) one(in, n, c, SIDE, __VA_ARGS__);                              \
      else                                                                                              \
        for (long last = c; last < in->width; last += LANES) one(in, n, last, 1, __VA_ARGS__);          \
    }

void forward(const text *in, real *y, int threads) { EACH_BLOCK(walk, y) }

void backward(const text *in, const real *dy, real *dx, real *dstate, real *dweight, int threads) {
  EACH_BLOCK(walk_back, dy, dx, dstate, dweight)
}

/* SiLU of the convolution and, of its first `unit` channels, heads of `head` channels brought to unit length. Without a gradient:
   the weight is read as the layer keeps it, [width, KERNEL], and the inputs that the next piece needs are written to `last`. */
static void read_row(const text *in, long n, long t, real *y) {
  for (long c = 0; c < in->width; c += LANES) {
    vec sum = in->bias ? load(in->bias + c) : (vec){0};
    for (int k = 0; k < KERNEL; k++) {
      vec weight;
#pragma GCC unroll 16
      for (int j = 0; j < LANES; j++) weight[j] = in->weight[(c + j) * KERNEL + k];
      sum += load(input(in, n, t + k - (KERNEL - 1), c)) * weight;
    }
    store(y + c, sum * sigmoid(sum));
  }
}

static void to_unit(real *y, long head, real eps) {
  real square = 0;
  long i = 0, whole = head / LANES * LANES;
  vec part = {0};
  for (; i < whole; i += LANES) part += load(y + i) * load(y + i);
  square = sum(part);
  for (; i < head; i++) square += y[i] * y[i];
  real scale = 1 / (sizeof(real) == 4 ? (real)sqrtf(square + eps) : (real)sqrt(square + eps));
  for (i = 0; i < whole; i += LANES) store(y + i, load(y + i) * scale);
  for (; i < head; i++) y[i] *= scale;
}

void heads(const text *in, real *y, real *last, long head, long unit, double eps, int threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (in->batch * in->time > 1)
  for (long n = 0; n < in->batch; n++)
    for (long t = 0; t < in->time; t++) {
      real *row = y + (n * in->time + t) * in->width;
      read_row(in, n, t, row);
      for (long c = 0; c < unit; c += head) to_unit(row + c, head, eps);
    }
  for (long n = 0; n < in->batch; n++)
    for (long t = 0; t < KERNEL - 1; t++)
      memcpy(last + (n * (KERNEL - 1) + t) * in->width, input(in, n, in->time - (KERNEL - 1) + t, 0), in->width * sizeof(real));
}
