/* Operators of PyTorch in which IEEE 754 leaves no choice of digits: one addition, subtraction, product or quotient of each pair of
   numbers, the other sign, and copies. REAL float or double; a copy is of whatever has so many bytes.

   `form`: the sizes of four axes, then for each of `to`, `a` and `b` the steps from a number to the next along each axis. */
typedef REAL real;

#define EACH(NAME, WHAT)                                                                                  \
  void NAME(real *to, const real *a, const real *b, const long *form) {                                   \
    const long *n = form, *p = form + 4, *q = form + 8, *r = form + 12;                                   \
    for (long i = 0; i < n[0]; i++)                                                                       \
      for (long j = 0; j < n[1]; j++)                                                                     \
        for (long k = 0; k < n[2]; k++) {                                                                 \
          real *t = to + i * p[0] + j * p[1] + k * p[2];                                                  \
          const real *x = a + i * q[0] + j * q[1] + k * q[2], *y = b + i * r[0] + j * r[1] + k * r[2];    \
          if (p[3] == 1 && q[3] == 1 && r[3] == 1)                                                        \
            for (long l = 0; l < n[3]; l++, t++, x++, y++) *t = WHAT;                                     \
          else                                                                                            \
            for (long l = 0; l < n[3]; l++, t += p[3], x += q[3], y += r[3]) *t = WHAT;                   \
        }                                                                                                 \
  }

EACH(add, *x + *y)
EACH(subtract, *x - *y)
EACH(multiply, *x **y)
EACH(divide, *x / *y)
EACH(negate, -*x)
EACH(copy, *x)

/* Rows of a table [total, width] by their indices; `outside` tells of an index that is none, whose row stays as it was. */
void rows(real *to, const real *table, const long *indices, long count, long width, long total, long *outside) {
  for (long i = 0; i < count; i++) {
    long row = indices[i];
    if (row < 0 || row >= total)
      *outside = 1;
    else
      for (long j = 0; j < width; j++) to[i * width + j] = table[row * width + j];
  }
}
