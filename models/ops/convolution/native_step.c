/* One token of the laws in native.c, without a gradient, for few rows: a channel's numbers lie side by side, as they are kept, so that
   nothing is laid out anew for it.

   REAL float or double; LANES, even, a divisor of `width`, which is 2n: real and imaginary parts in turns.
   Layouts: x, y [rows, channels]; a, b, c, u, v [channels, width]; states [rows, degree, channels, width]. */
#include "../native.h"

typedef struct {
  long rows, channels, width, degree;
  const real *x, *system[5];
} token;

/* a b of pairs. */
static inline vec times(vec a, vec b) {
  vec sign = __builtin_convertvector((LANE & 1) * 2 - 1, vec);
  return __builtin_shuffle(a, LANE & ~1) * b + __builtin_shuffle(a, LANE | 1) * sign * __builtin_shuffle(b, LANE ^ 1);
}

/* Twice the real part of a sum of products of pairs, made of those of their parts. */
static inline real seen(vec parts) { return 2 * sum(parts * __builtin_convertvector(1 - (LANE & 1) * 2, vec)); }

/* One channel of one row: `lower` apart lie a degree's state and the next one's. */
static inline real channel(const token *in, long at, real x, const real *before, real *after, long lower) {
  const real *const *s = in->system, *a = s[0] + at, *b = s[1] + at, *c = s[2] + at;
  vec erased = {0}, out = {0};
  real e = 0;
  if (s[3]) {
    for (long j = 0; j < in->width; j += LANES) erased += load(s[4] + at + j) * load(before + j);
    e = seen(erased);
  }
  for (long j = 0; j < in->width; j += LANES) {
    vec given = load(b + j) * x, h = given + times(load(a + j), load(before + j)), whole;
    if (s[3]) h -= load(s[3] + at + j) * e;
    store(after + j, h);
    whole = h;
    for (long p = 1; p < in->degree; p++) {
      h = times(given, load(before + (p - 1) * lower + j)) + times(load(a + j), load(before + p * lower + j));
      store(after + p * lower + j, h);
      whole += h;
    }
    out += load(c + j) * whole;
  }
  return seen(out);
}

/* before: the states of all degrees, which stay as they are; after: those behind the token. */
void step(const token *in, const real *before, real *after, real *y) {
  long lower = in->channels * in->width;
  for (long row = 0; row < in->rows; row++)
    for (long d = 0; d < in->channels; d++) {
      long at = d * in->width, place = row * in->degree * lower + at, own = row * in->channels + d;
      y[own] = channel(in, at, in->x[own], before + place, after + place, lower);
    }
}
