/* What a layer does with each of many rows between its products, forward and back, each number read once:

     RMS norm   y = r g x,  r = (mean x^2 + eps)^-1/2;   dx = r g dy - r^3 mean(g dy x) x,  dg = sum r x dy
     gate       y = u z s,  s = sigmoid(z);              du = dy z s,  dz = dy u (s + z s (1 - s))

   REAL float or double; LANES what a register holds; rows of any width. Where a gain is wider than a row, it lies over several. */
#include "../native.h"

#define BLOCKS 64 /* of rows, whose gradients of the gain are summed apart: as many however many threads there are */

static inline vec load_first(const real *from, long count) {
  vec x = {0};
  memcpy(&x, from, count * sizeof(real));
  return x;
}

/* EACH(i, n): from i on, n numbers at once: a register's, and at the end what is left. */
#define EACH(i, n) for (long i = 0, n; n = width - i < LANES ? width - i : LANES, i < width; i += LANES)
#define GET(from, i, n) (n == LANES ? load((from) + i) : load_first((from) + i, n))
#define PUT(to, i, n, x)                            \
  do {                                              \
    if (n == LANES) store((to) + i, x);             \
    else store_first((to) + i, x, n);               \
  } while (0)

static real inverse_root_of_mean(const real *x, long width, double eps) {
  vec square = {0};
  EACH(i, n) {
    vec own = GET(x, i, n);
    square += own * own;
  }
  real mean = sum(square) / width + (real)eps;
  return 1 / (sizeof(real) == 4 ? (real)sqrtf(mean) : (real)sqrt(mean));
}

void norm_forward(const real *x, const real *gain, real *y, long rows, long width, long gains, double eps, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long row = 0; row < rows; row++) {
    const real *from = x + row * width, *g = gain ? gain + row * width % gains : 0;
    real r = inverse_root_of_mean(from, width, eps), *to = y + row * width;
    EACH(i, n) {
      vec own = GET(from, i, n) * r;
      PUT(to, i, n, (g ? own * GET(g, i, n) : own));
    }
  }
}

static void norm_row_back(const real *x, const real *g, const real *dy, real *dx, real *dg, long width, double eps) {
  real r = inverse_root_of_mean(x, width, eps);
  vec along = {0};
  EACH(i, n) {
    vec own = GET(x, i, n), d = GET(dy, i, n);
    if (g) {
      PUT(dg, i, n, GET(dg, i, n) + own * d * r);
      d *= GET(g, i, n);
    }
    along += own * d;
  }
  real less = sum(along) / width * r * r * r;
  EACH(i, n) {
    vec d = GET(dy, i, n);
    if (g) d *= GET(g, i, n);
    PUT(dx, i, n, d * r - GET(x, i, n) * less);
  }
}

/* `dgain` [BLOCKS, gains], zeros before. */
void norm_backward(const real *x, const real *gain, const real *dy, real *dx, real *dgain, long rows, long width, long gains,
                   double eps, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long block = 0; block < BLOCKS; block++)
    for (long row = rows * block / BLOCKS; row < rows * (block + 1) / BLOCKS; row++) {
      long at = row * width, part = at % gains;
      norm_row_back(x + at, gain ? gain + part : 0, dy + at, dx + at, gain ? dgain + block * gains + part : 0, width, eps);
    }
}

/* Rows of u lie `us` numbers apart, and so on; those of y and dy side by side. */
void gate_forward(const real *u, long us, const real *z, long zs, real *y, long rows, long width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long row = 0; row < rows; row++) EACH(i, n) {
      vec own = GET(z + row * zs, i, n);
      PUT(y + row * width, i, n, GET(u + row * us, i, n) * (own * quick_sigmoid(own)));
    }
}

void gate_backward(const real *u, long us, const real *z, long zs, const real *dy, real *du, long dus, real *dz, long dzs, long rows,
                   long width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long row = 0; row < rows; row++) EACH(i, n) {
      vec own = GET(z + row * zs, i, n), d = GET(dy + row * width, i, n), s = quick_sigmoid(own), h = own * s;
      PUT(du + row * dus, i, n, d * h);
      PUT(dz + row * dzs, i, n, d * GET(u + row * us, i, n) * (s + h * (1 - s)));
    }
}
