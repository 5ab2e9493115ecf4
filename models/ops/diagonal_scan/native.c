/* The diagonal law h_t = a_t h_{t-1} + x_t and its backward pass, numbers of the state side by side in vectors:

     g_t = dh_t + conj(a_{t+1}) g_{t+1},   dx_t = g_t,   da_t = g_t conj(h_{t-1})

   REAL float or double   PAIRS 1 where two numbers are one complex   FIXED 1 where all tokens share a   LANES a divisor of width
   Layouts: x, h, a [batch, time, width], fixed a [width], its gradient [batch, width]; states [batch, width]. */
#include "../native.h"

#define BLOCK (4 * LANES) /* numbers that one walk over the text takes along: whole lines of the cache */

typedef struct {
  long batch, time, width;
  const real *a;
} text;

/* a b of numbers, or of pairs; `turn` is 1, or -1 for conj(a) b. */
static inline vec times(vec a, vec b, real turn) {
  if (!PAIRS) return a * b;
#if PAIRS
  vec sign = __builtin_convertvector((LANE & 1) * 2 - 1, vec) * turn;
  return __builtin_shuffle(a, LANE & ~1) * b + __builtin_shuffle(a, LANE | 1) * sign * __builtin_shuffle(b, LANE ^ 1);
#endif
}

static inline const real *gate(const text *x, long n, long t, long c) { return x->a + (FIXED ? c : (n * x->time + t) * x->width + c); }

static inline __attribute__((always_inline)) void walk(const text *in, long n, long c, int side, const real *x, real *state, real *h) {
  vec now[4];
  for (int j = 0; j < side; j++) now[j] = load(state + n * in->width + c + j * LANES);
  for (long t = 0; t < in->time; t++) {
    long place = (n * in->time + t) * in->width + c;
    for (int j = 0; j < side; j++) {
      now[j] = times(load(gate(in, n, t, c) + j * LANES), now[j], 1) + load(x + place + j * LANES);
      store(h + place + j * LANES, now[j]);
    }
  }
  for (int j = 0; j < side; j++) store(state + n * in->width + c + j * LANES, now[j]);
}

/* state: the first one on entry, the last one on return. */
void forward(const text *in, const real *x, real *state, real *h, int threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long n = 0; n < in->batch; n++)
    for (long c = 0; c < in->width; c += BLOCK) {
      if (c + BLOCK <= in->width) walk(in, n, c, 4, x, state, h);
      else
        for (long one = c; one < in->width; one += LANES) walk(in, n, one, 1, x, state, h);
    }
}

static inline __attribute__((always_inline)) void walk_back(const text *in, long n, long c, int side, const real *h, const real *first,
                                                            const real *dh, real *state, real *dx, real *da) {
  vec back[4], sum[4] = {{0}}; /* back: what comes from the token behind, its own a in it */
  for (int j = 0; j < side; j++) back[j] = load(state + n * in->width + c + j * LANES);
  for (long t = in->time - 1; t >= 0; t--) {
    long place = (n * in->time + t) * in->width + c;
    const real *before = t ? h + place - in->width : first + n * in->width + c;
    for (int j = 0; j < side; j++) {
      vec g = load(dh + place + j * LANES) + back[j], slope = times(load(before + j * LANES), g, -1);
      store(dx + place + j * LANES, g);
      back[j] = times(load(gate(in, n, t, c) + j * LANES), g, -1);
      if (FIXED) sum[j] += slope;
      else store(da + place + j * LANES, slope);
    }
  }
  for (int j = 0; j < side; j++) {
    store(state + n * in->width + c + j * LANES, back[j]);
    if (FIXED) store(da + n * in->width + c + j * LANES, sum[j]);
  }
}

/* first: the first state; state: the gradient of the last one on entry, of the first on return. */
void backward(const text *in, const real *h, const real *first, const real *dh, real *state, real *dx, real *da, int threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long n = 0; n < in->batch; n++)
    for (long c = 0; c < in->width; c += BLOCK) {
      if (c + BLOCK <= in->width) walk_back(in, n, c, 4, h, first, dh, state, dx, da);
      else
        for (long one = c; one < in->width; one += LANES) walk_back(in, n, one, 1, h, first, dh, state, dx, da);
    }
}
