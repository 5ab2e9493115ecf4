/* Polynomial features of degree two, with their backward pass, row by row:

     u = (f_0, f_1 x, f_2 x_i x_j for i <= j),   y = u / sqrt(|u|^2 + EPSILON)

   REAL float or double; W numbers a row; LANES of them side by side: zeros behind x end what passes the end of a run of j.
   Layouts: x [rows, W]; y [rows, FEATURES]; factors [3]. */
#include "../../native.h"

#define EPSILON 1e-6
#define FEATURES (1 + W + W * (W + 1) / 2)
#define RUN(i) (1 + W + (i) * W - (i) * ((i) - 1) / 2) /* where the products with x_i begin */

static inline real dot(const real *a, const real *b, long count) {
  vec part = {0};
  long i = 0;
  for (; i + LANES <= count; i += LANES) part += load(a + i) * load(b + i);
  real total = sum(part);
  for (; i < count; i++) total += a[i] * b[i];
  return total;
}

/* u and what divides it, as a factor. u has room for LANES more. */
static real unscaled(const real *x, const real *f, real *u) {
  u[0] = f[0];
  for (int i = 0; i < W; i++) u[1 + i] = f[1] * x[i];
  for (int i = 0; i < W; i++)
    for (int j = i; j < W; j += LANES) store(u + RUN(i) + j - i, load(x + j) * (f[2] * x[i]));
  return 1 / sqrt(dot(u, u, FEATURES) + (real)EPSILON);
}

void forward(const real *x, const real *factors, real *y, long rows, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long row = 0; row < rows; row++) {
    real own[W + LANES] = {0}, u[FEATURES + LANES], *to = y + row * FEATURES;
    memcpy(own, x + row * W, W * sizeof(real));
    real scale = unscaled(own, factors, u);
    for (int i = 0; i < FEATURES; i++) to[i] = u[i] * scale;
  }
}

/* dx of one row; df [3] is added to. */
static void row_back(const real *x, const real *f, const real *dy, real *dx, real *df) {
  real own[W + LANES] = {0}, u[FEATURES + LANES], du[FEATURES + LANES] = {0}, slope[W + LANES] = {0};
  memcpy(own, x, W * sizeof(real));
  real scale = unscaled(own, f, u), along = dot(u, dy, FEATURES) * scale * scale;
  for (int i = 0; i < FEATURES; i++) du[i] = (dy[i] - u[i] * along) * scale;
  df[0] += du[0], df[1] += dot(du + 1, own, W);
  for (int i = 0; i < W; i++) {
    vec part = {0};
    for (int j = i; j < W; j += LANES) {
      vec d = load(du + RUN(i) + j - i);
      part += d * load(own + j), store(slope + j, load(slope + j) + d * own[i]);
    }
    real met = sum(part);
    df[2] += met * own[i], slope[i] += met;
  }
  for (int i = 0; i < W; i++) dx[i] = f[1] * du[1 + i] + f[2] * slope[i];
}

/* dfactors [parts, 3]: rows are cut into as many parts whatever the number of threads, so sums are made in one order. */
void backward(const real *x, const real *factors, const real *dy, real *dx, real *dfactors, long rows, long parts, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long part = 0; part < parts; part++) {
    real df[3] = {0};
    for (long row = rows * part / parts; row < rows * (part + 1) / parts; row++)
      row_back(x + row * W, factors, dy + row * FEATURES, dx + row * W, df);
    memcpy(dfactors + 3 * part, df, sizeof df);
  }
}
