/* A batch of texts as the compiled short convolutions read it, and the inputs before it.

   REAL float or double   KERNEL inputs a token   LANES a divisor of what is read at once
   Layouts: x [batch, time, width]; weight [KERNEL, width], the newest input's last; bias [width] or NULL; state, the inputs
   before the text, [batch, KERNEL - 1, width]. */
#include "../native.h"

typedef struct {
  long batch, time, width;
  const real *x, *weight, *bias, *state;
} text;

/* Input t of a row of the batch, which before the text is the state's. */
static inline const real *input(const text *in, long n, long t, long c) {
  if (t < 0) return in->state + (n * (KERNEL - 1) + KERNEL - 1 + t) * in->width + c;
  return in->x + (n * in->time + t) * in->width + c;
}
