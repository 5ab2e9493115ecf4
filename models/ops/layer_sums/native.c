/* Weighted sums of what earlier layers gave, and what flows back into one of them. REAL float or double; LANES numbers a vector.

     x_s = sum_i w[s, i] y_i            dy_i = sum_s w[s, i] dx_s        dw[s, i] = <y_i, dx_s>

   A sum is made in blocks that stay in the first cache, so that each term is read once and the sum written once. */
#include "../native.h"

#define BLOCK 1024 /* numbers */

static inline long least(long a, long b) { return a < b ? a : b; }

/* out[n] (+)= w from[n] */
static inline void add(const real *from, real w, long n, int first, real *out) {
  long j = 0;
  for (; j + LANES <= n; j += LANES) store(out + j, first ? load(from + j) * w : load(out + j) + load(from + j) * w);
  for (; j < n; j++) out[j] = first ? from[j] * w : out[j] + from[j] * w;
}

static inline real dot(const real *a, const real *b, long n) {
  vec total[2] = {{0}};
  long j = 0;
  for (; j + 2 * LANES <= n; j += 2 * LANES)
    total[0] += load(a + j) * load(b + j), total[1] += load(a + j + LANES) * load(b + j + LANES);
  real found = sum(total[0] + total[1]);
  for (; j < n; j++) found += a[j] * b[j];
  return found;
}

/* out[count] = sum of `many` terms [count], each times its weight. */
void forward(const real *const *terms, const real *weights, long many, long count, real *out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long begin = 0; begin < count; begin += BLOCK) {
    long n = least(BLOCK, count - begin);
    for (long i = 0; i < many; i++) add(terms[i] + begin, weights[i], n, !i, out + begin);
  }
}

/* dterm[count] of slopes [many, count]; dweights [parts, many], zeros at first: a part of the text has sums of its own, whoever
   computes it. */
void backward(const real *slopes, const real *weights, const real *term, long many, long count, real *dterm, real *dweights,
              long parts, int threads) {
  long blocks = (count + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long part = 0; part < parts; part++)
    for (long block = blocks * part / parts; block < blocks * (part + 1) / parts; block++) {
      long begin = block * BLOCK, n = least(BLOCK, count - begin);
      for (long i = 0; i < many; i++) {
        const real *slope = slopes + i * count + begin;
        add(slope, weights[i], n, !i, dterm + begin);
        dweights[part * many + i] += dot(term + begin, slope, n);
      }
    }
}
