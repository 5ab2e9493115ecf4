/* Rotary positions of a text: pairs of numbers, half a head apart, turned by the angle of their token's place, or back. Every product
   is rounded by itself, as PyTorch rounds it: these are its digits, and a training with it stays the one that it was.

   REAL float or double; LANES what a register holds.
   Layouts: x [batch, time, heads, 2 half] with steps of its own; y the same without; cosine, sine [time, half]. */
#ifdef __clang__
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include "../native.h"

#define FEW 16384 /* numbers up to which threads are not worth their start */

typedef struct {
  long batch, time, heads, half, apart, down, aside; /* steps between rows of the batch, tokens and heads of x */
} text;

static inline void turn_head(const real *from, real *to, const real *cosine, const real *sine, long half, real sign) {
  long i = 0;
  for (; i + LANES <= half; i += LANES) {
    vec c = load(cosine + i), s = load(sine + i) * sign, first = load(from + i), second = load(from + half + i);
    store(to + i, first * c - second * s), store(to + half + i, second * c + first * s);
  }
  for (; i < half; i++) {
    real c = cosine[i], s = sine[i] * sign, first = from[i], second = from[half + i];
    to[i] = first * c - second * s, to[half + i] = second * c + first * s;
  }
}

/* sign: 1, or -1 to turn back */
void turn(const text *x, const real *from, const real *cosine, const real *sine, real *to, double sign, int threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) \
    if (threads > 1 && x->batch * x->time * x->heads * x->half > FEW)
  for (long n = 0; n < x->batch; n++)
    for (long t = 0; t < x->time; t++)
      for (long h = 0; h < x->heads; h++)
        turn_head(from + n * x->apart + t * x->down + h * x->aside, to + ((n * x->time + t) * x->heads + h) * 2 * x->half,
                  cosine + t * x->half, sine + t * x->half, x->half, (real)sign);
}
