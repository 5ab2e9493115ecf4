/* Maps of a segment's rows, whose weights are put in the order in which tiles take them. */

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

/* The context's maps packed, those of each head's columns behind those of the head before; the way back has them turned. */
static real *pack(const context *x, context *own, int back) {
  long all = x->heads * K, columns = x->heads * COLUMNS, end = x->width;
  real *to = malloc((2 * all * all + all * end + columns * end) * sizeof(real)), *out = to + 2 * all * all, *update = out + all * end;
  *own = *x, own->recall = to, own->out = out, own->update = update;
  for (long h = 0; h < x->heads; h++) {
    long first = columns_before(x, h), count = columns_before(x, h + 1) - first;
    if (back) {
      pack_columns(x->recall + h * K, all, 1, 2 * all, K, to + h * K * 2 * all);
      pack_columns(x->out + h * K, all, 1, end, K, out + h * K * end);
      pack_columns(x->update + first, end, 1, columns, count, update + first * columns);
    } else {
      pack_columns(x->recall + h * 2 * K * all, 1, all, all, 2 * K, to + h * 2 * K * all);
      pack_columns(x->out + first * all, 1, all, all, count, out + first * all);
      pack_columns(x->update + h * COLUMNS * end, 1, end, end, COLUMNS, update + h * COLUMNS * end);
    }
  }
  return to;
}
