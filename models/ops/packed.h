/* Maps of rows whose weights lie in the order in which tiles take them; include tiles.h before it. */

/* B [depth, columns], whose number (i, c) lies at weights[i down + c along], strip by strip. */
static void pack_columns(const real *weights, long down, long along, long depth, long columns, real *to) {
  for (long c = 0; c < columns; c += 2 * LANES) {
    long wide = columns - c < 2 * LANES ? LANES : 2 * LANES;
    for (long i = 0; i < depth; i++)
      for (long j = 0; j < wide; j++) *to++ = weights[i * down + (c + j) * along];
  }
}

/* out [rows, columns] = from + A B, of packed columns; `from` may be out itself, or NULL for zeros. */
static void map(const real *A, long down, const real *B, long depth, const real *from, real *out, long pitch, long rows, long columns) {
  long c = 0;
  for (; c + 2 * LANES <= columns; c += 2 * LANES)
    strip(A, down, 1, B + depth * c, 2 * LANES, depth, from ? from + c : 0, 1, out + c, pitch, rows, 2);
  if (c < columns) strip(A, down, 1, B + depth * c, LANES, depth, from ? from + c : 0, 1, out + c, pitch, rows, 1);
}
