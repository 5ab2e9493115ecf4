/* Products of small matrices, as many columns as LANES divides, and their transposes; include native.h before it. */
#define INLINE static inline __attribute__((always_inline))
#define UP(n) (((n) + LANES - 1) / LANES * LANES) /* rows and columns are filled up with zeros to this */

/* A tile of `high` rows and `side` vectors, whose sums stay in registers: twelve sums hide a product's latency. */
INLINE void tile(const real *A, long down, long along, const real *B, long wide, long depth, const real *from, real scale, real *out,
                 long pitch, const int high, const int side) {
  vec sum[6][2];
#pragma GCC unroll 6
  for (int r = 0; r < high; r++)
#pragma GCC unroll 2
    for (int s = 0; s < side; s++) sum[r][s] = from ? load(from + r * pitch + s * LANES) * scale : (vec){0};
  for (long k = 0; k < depth; k++) {
    vec b[2];
#pragma GCC unroll 2
    for (int s = 0; s < side; s++) b[s] = load(B + k * wide + s * LANES);
#pragma GCC unroll 6
    for (int r = 0; r < high; r++)
#pragma GCC unroll 2
      for (int s = 0; s < side; s++) sum[r][s] += b[s] * A[r * down + k * along];
  }
#pragma GCC unroll 6
  for (int r = 0; r < high; r++)
#pragma GCC unroll 2
    for (int s = 0; s < side; s++) store(out + r * pitch + s * LANES, sum[r][s]);
}

INLINE void strip(const real *A, long down, long along, const real *B, long wide, long depth, const real *from, real scale, real *out,
                  long pitch, long rows, const int side) {
  long r = 0, fives = (6 - rows % 6) % 6; /* as many tiles of five as leave whole sixes: few rows alone would wait for their sums */
  if (5 * fives > rows) fives = 0;
  for (; r < 5 * fives; r += 5)
    tile(A + r * down, down, along, B, wide, depth, from ? from + r * pitch : 0, scale, out + r * pitch, pitch, 5, side);
  for (; r + 6 <= rows; r += 6)
    tile(A + r * down, down, along, B, wide, depth, from ? from + r * pitch : 0, scale, out + r * pitch, pitch, 6, side);
  A += r * down, out += r * pitch, from = from ? from + r * pitch : 0;
  if (rows - r == 5) tile(A, down, along, B, wide, depth, from, scale, out, pitch, 5, side);
  if (rows - r == 4) tile(A, down, along, B, wide, depth, from, scale, out, pitch, 4, side);
  if (rows - r == 3) tile(A, down, along, B, wide, depth, from, scale, out, pitch, 3, side);
  if (rows - r == 2) tile(A, down, along, B, wide, depth, from, scale, out, pitch, 2, side);
  if (rows - r == 1) tile(A, down, along, B, wide, depth, from, scale, out, pitch, 1, side);
}

/* out[rows, columns] = scale from + A B. A's number (i, k) lies at A[i down + k along], so that A may stand turned; `wide` and
   `pitch` are the lengths of rows of B and of out, and of from, which may be out itself, or NULL for zeros. */
static void product(const real *A, long down, long along, const real *B, long wide, long depth, const real *from, real scale, real *out,
                    long pitch, long rows, long columns) {
  long c = 0;
  for (; c + 2 * LANES <= columns; c += 2 * LANES)
    strip(A, down, along, B + c, wide, depth, from ? from + c : 0, scale, out + c, pitch, rows, 2);
  if (c < columns) strip(A, down, along, B + c, wide, depth, from ? from + c : 0, scale, out + c, pitch, rows, 1);
}

/* to[columns, rows] = from[rows, columns]^T; rows and columns are multiples of LANES. */
static void transpose(const real *from, long wide, real *to, long pitch, long rows, long columns) {
  for (long r = 0; r < rows; r += LANES)
    for (long c = 0; c < columns; c += LANES) {
      vec block[LANES];
      for (int i = 0; i < LANES; i++) block[i] = load(from + (r + i) * wide + c);
#pragma GCC unroll 4
      for (int half = LANES / 2; half; half /= 2) { /* quarters off the diagonal change places, at every size */
        whole low = LANE + ((LANE & half) != 0) * -(LANES - half), high = low + half;
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
          if (!(i & half)) {
            vec upper = block[i], lower = block[i + half];
            block[i] = __builtin_shuffle(upper, lower, low), block[i + half] = __builtin_shuffle(upper, lower, high);
          }
      }
      for (int i = 0; i < LANES; i++) store(to + (c + i) * pitch + r, block[i]);
    }
}
