/* The diagonal law h_t = a_t h_{t-1} + x_t and its backward pass, numbers of the state side by side in vectors:

     g_t = dh_t + conj(a_{t+1}) g_{t+1},   dx_t = g_t,   da_t = g_t conj(h_{t-1})

   REAL float or double   PAIRS 1 where two numbers are one complex   FIXED 1 where all tokens share a   LANES a divisor of width
   Layouts: x, h, a [batch, time, width], fixed a [width], its gradient [batch, width]; states [batch, width]. */
#include "../native.h"

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

static inline const real *gate(const text *x, long n, long t) { return x->a + (FIXED ? 0 : (n * x->time + t) * x->width); }

/* Threads share out rows and, where these are too few, columns in pieces of whole lines of the cache. */
static inline long piece_of(const text *in, int threads) {
  long pieces = (threads + in->batch - 1) / in->batch, line = 64 / sizeof(real);
  return (in->width / pieces + line) / line * line;
}

static inline long end_of(const text *in, long c, long piece) { return c + piece < in->width ? c + piece : in->width; }

/* state: the first one on entry, the last one on return. Token by token over all columns: a text's numbers are read as they lie, and
   the state before a token is the row of h above it, still in the first cache. */
void forward(const text *in, const real *x, real *state, real *h, int threads) {
  const long piece = piece_of(in, threads);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long n = 0; n < in->batch; n++)
    for (long begun = 0; begun < in->width; begun += piece) {
      const long end = end_of(in, begun, piece);
      real *before = state + n * in->width;
      for (long t = 0; t < in->time; t++) {
        long row = (n * in->time + t) * in->width;
        const real *a = gate(in, n, t), *above = t ? h + row - in->width : before;
        for (long c = begun; c < end; c += LANES) store(h + row + c, times(load(a + c), load(above + c), 1) + load(x + row + c));
      }
      memcpy(before + begun, h + (n * in->time + in->time - 1) * in->width + begun, (end - begun) * sizeof(real));
    }
}

/* first: the first state; state: the gradient of the last one on entry, of the first on return. */
void backward(const text *in, const real *h, const real *first, const real *dh, real *state, real *dx, real *da, int threads) {
  const long piece = piece_of(in, threads);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long n = 0; n < in->batch; n++)
    for (long begun = 0; begun < in->width; begun += piece) {
      const long end = end_of(in, begun, piece);
      real *later = state + n * in->width, *sums = da + n * in->width;
      if (FIXED) memset(sums + begun, 0, (end - begun) * sizeof(real));
      for (long t = in->time - 1; t >= 0; t--) {
        long row = (n * in->time + t) * in->width;
        const real *a = gate(in, n, t + 1), *before = t ? h + row - in->width : first + n * in->width;
        for (long c = begun; c < end; c += LANES) {
          vec back = t + 1 < in->time ? times(load(a + c), load(dx + row + in->width + c), -1) : load(later + c);
          vec g = load(dh + row + c) + back, slope = times(load(before + c), g, -1);
          store(dx + row + c, g);
          if (FIXED) store(sums + c, load(sums + c) + slope);
          else store(da + row + c, slope);
        }
      }
      const real *a = gate(in, n, 0), *g = dx + n * in->time * in->width;
      for (long c = begun; c < end; c += LANES) store(later + c, times(load(a + c), load(g + c), -1));
    }
}
