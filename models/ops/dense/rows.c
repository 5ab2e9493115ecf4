/* What stands between a layer's products, row by row, forward and back: a residual sum with the norm behind it, and SwiGLU's gate.

   REAL float or double; LANES what a register holds; it divides the width.
   Layouts: x, y, s, n and their gradients [rows, width]; scale [rows]; both, d_both [rows, 2 units], gates first. */
#ifndef LANE /* a larger piece has it already */
#include "../native.h"
#endif

#define FEW 16384 /* numbers up to which threads are not worth their start */

/* s = x + y (x where y is NULL), n = s / sqrt(mean(s^2) + eps); s may be NULL where y is */
void norm_forward(const real *x, const real *y, real *s, real *n, real *scale, long rows, long width, double eps, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * width > FEW)
  for (long r = 0; r < rows; r++) {
    const real *from = x + r * width;
    real *to = n + r * width;
    vec squares = {0};
    for (long i = 0; i < width; i += LANES) {
      vec one = load(from + i);
      if (y) one += load(y + r * width + i), store(s + r * width + i, one);
      squares += one * one;
    }
    if (y) from = s + r * width;
    scale[r] = 1 / (real)sqrt((double)(sum(squares) / width) + eps);
    for (long i = 0; i < width; i += LANES) store(to + i, load(from + i) * scale[r]);
  }
}

/* dx = ds + scale (dn - n mean(dn n)); ds NULL for zeros */
void norm_backward(const real *dn, const real *ds, const real *n, const real *scale, real *dx, long rows, long width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * width > FEW)
  for (long r = 0; r < rows; r++) {
    const real *up = dn + r * width, *own = n + r * width;
    vec met = {0};
    for (long i = 0; i < width; i += LANES) met += load(up + i) * load(own + i);
    real along = sum(met) / width;
    for (long i = 0; i < width; i += LANES) {
      vec d = (load(up + i) - load(own + i) * along) * scale[r];
      store(dx + r * width + i, ds ? d + load(ds + r * width + i) : d);
    }
  }
}

/* Numbers from `from` on, as many as a register holds and as are left; zeros behind them. */
static inline vec some(const real *from, long left) {
  if (left >= LANES) return load(from);
  vec x = {0};
  memcpy(&x, from, left * sizeof(real));
  return x;
}

static inline void put(real *to, vec x, long left) { left >= LANES ? store(to, x) : store_first(to, x, (int)left); }

/* y [rows, units] = silu(gate) up */
void gate_forward(const real *both, real *y, long rows, long units, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * units > FEW)
  for (long r = 0; r < rows; r++)
    for (long i = 0; i < units; i += LANES) {
      vec z = some(both + 2 * r * units + i, units - i);
      put(y + r * units + i, z * sigmoid(z) * some(both + (2 * r + 1) * units + i, units - i), units - i);
    }
}

void gate_backward(const real *dy, const real *both, real *d_both, long rows, long units, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * units > FEW)
  for (long r = 0; r < rows; r++)
    for (long i = 0; i < units; i += LANES) {
      long gate = 2 * r * units + i, left = units - i;
      vec z = some(both + gate, left), d = some(dy + r * units + i, left), share = sigmoid(z), active = z * share;
      put(d_both + gate + units, d * active, left);
      put(d_both + gate, d * some(both + gate + units, left) * (share + active * (1 - share)), left);
    }
}
