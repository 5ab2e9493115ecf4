/* Products of small matrices that lie in the first caches, in blocks whose sums stay in registers, and their transposes.
   Rows are whole vectors long: what a width lacks of them is filled up with zeros. */
#include "../native.h"

#define ONCE static __attribute__((noinline, noclone)) /* not once more for each call's widths: that is slow to build */
#define WHOLE_VECTORS(width) (((width) + LANES - 1) / LANES * LANES)

#define INLINE static inline __attribute__((always_inline))

/* `height` rows and `side` vectors of to += A B; A[i, s] lies at A[i * row + s * column]. */
INLINE void block(real *to, long stride, const real *A, long row, long column, const real *B,
                  long wide, int inner, int height, int side) {
  vec sum[4][3];
#pragma GCC unroll 4
  for (int i = 0; i < height; i++)
#pragma GCC unroll 3
    for (int j = 0; j < side; j++) sum[i][j] = load(to + i * stride + j * LANES);
  for (int s = 0; s < inner; s++) {
    vec own[3];
#pragma GCC unroll 3
    for (int j = 0; j < side; j++) own[j] = load(B + s * wide + j * LANES);
#pragma GCC unroll 4
    for (int i = 0; i < height; i++) {
      real a = A[i * row + s * column];
#pragma GCC unroll 3
      for (int j = 0; j < side; j++) sum[i][j] += own[j] * a;
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < height; i++)
#pragma GCC unroll 3
    for (int j = 0; j < side; j++) store(to + i * stride + j * LANES, sum[i][j]);
}

INLINE void strip(real *to, long stride, const real *A, long row, long column, const real *B,
                  long wide, int rows, int inner, int side) {
  int i = 0;
  for (; i + 4 <= rows; i += 4) block(to + i * stride, stride, A + i * row, row, column, B, wide, inner, 4, side);
  for (; i < rows; i++) block(to + i * stride, stride, A + i * row, row, column, B, wide, inner, 1, side);
}

/* to += A B: to [rows, columns] in rows of `stride`, B [inner, columns] in rows of `wide`; columns are whole vectors. */
ONCE void multiply(real *to, long stride, const real *A, long row, long column, const real *B, long wide, int rows, int inner,
                   int columns) {
  int vectors = columns / LANES, c = 0;
  for (; vectors >= 5 || vectors == 3; vectors -= 3, c += 3 * LANES)
    strip(to + c, stride, A, row, column, B + c, wide, rows, inner, 3);
  for (; vectors >= 2; vectors -= 2, c += 2 * LANES) strip(to + c, stride, A, row, column, B + c, wide, rows, inner, 2);
  if (vectors) strip(to + c, stride, A, row, column, B + c, wide, rows, inner, 1);
}

/* to[c, i] = from[i, c], both rows and columns whole vectors: in each turn two vectors change halves of ever smaller blocks. */
ONCE void transpose(real *to, long stride, const real *from, long wide, int rows, int columns) {
  for (int i = 0; i < rows; i += LANES)
    for (int c = 0; c < columns; c += LANES) {
      vec x[LANES];
#pragma GCC unroll 16
      for (int r = 0; r < LANES; r++) x[r] = load(from + (i + r) * wide + c);
#pragma GCC unroll 4
      for (int half = LANES / 2; half; half /= 2) {
        whole bit = (LANE & half) / half;
        whole first = (LANE ^ bit * half) + bit * LANES, second = (LANE ^ (1 - bit) * half) + bit * LANES;
#pragma GCC unroll 16
        for (int r = 0; r < LANES; r++)
          if (!(r & half)) {
            vec one = x[r], other = x[r | half];
            x[r] = __builtin_shuffle(one, other, first);
            x[r | half] = __builtin_shuffle(one, other, second);
          }
      }
#pragma GCC unroll 16
      for (int r = 0; r < LANES; r++) store(to + (c + r) * stride + i, x[r]);
    }
}

static inline real dot(const real *x, const real *y, int columns) {
  vec found = {0};
  for (int c = 0; c < columns; c += LANES) found += load(x + c) * load(y + c);
  return sum(found);
}
