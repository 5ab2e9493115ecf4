/* Memory as context (Titans' MAC): the loop over whole segments and its backward pass. Of each segment, with M before it,

     h = RMSNorm(M(q));  y = x + W_o Attn([P | R h | S]);  u = U y;  M <- M(u);  reads = RMSNorm(M_i(u_i))

   where R makes keys and values of h, and U what the memory is given of a token: q, k, v, which pass a convolution, SiLU and norm,
   and its gates' logits. Only this hangs on the segment before; all that does not has been made for the whole text.

   REAL, K, H, V, DEPTH, GATES, SILU, DECAYED, EXCLUSIVE, LANES as in the memory's native.c; K = V
   KERNEL inputs of a token's convolution   UNIT parts of q, k, v of unit length   MOMENTUM, FORGET 1, or 0 where there is no such gate

   Heads are a thread's work: they meet where all heads are asked for, before each of the maps R, W_o and U. Every number is made by one thread in one
   order, however many there are. */
#define STEP 16 /* it takes whole states, not bands of columns */
#include "../neural_memory/native.c"
#include "../tiles.h"
#include "text.h"
#include "maps.h"
#include "forward.h"
#include "backward.h"

#define EACH_HEAD                                          \
  for (long item = 0; item < x->batch * x->heads; item++) \
    for (long n = item / x->heads, h = item % x->heads, once = 1; once; once = 0)

/* m->state: the first one on entry, the last on return; m->made has the convolutions' tails. */
void read_segments(const context *given, const passed *m, int threads) {
  context packed, *x = &packed;
  real *weights = pack(given, &packed, 0);
#pragma omp parallel num_threads(threads)
  {
    room own = room_of(x, 0);
    for (long start = 0; start < x->time; start += x->segment) {
#pragma omp for schedule(static)
      EACH_HEAD recall(x, m, n, start, h, m->state + item * 2 * SIZE, &own, 0);
#pragma omp for schedule(static)
      EACH_HEAD attend(x, m, n, start, h, &own);
#pragma omp for schedule(static)
      EACH_HEAD join(x, m, n, start, h);
#pragma omp for schedule(static) nowait /* a head stays with its thread */
      EACH_HEAD learn(x, m, n, start, h, &own);
    }
    leave(&own);
  }
  free(weights);
}

/* d->state: the gradient of the last state on entry, of the first on return. */
void segments_back(const context *given, const passed *m, const sloped *d, int threads) {
  context packed, *x = &packed;
  real *weights = pack(given, &packed, 1);
#pragma omp parallel num_threads(threads)
  {
    room own = room_of(x, 1);
    for (long start = x->time - x->segment; start >= 0; start -= x->segment) {
#pragma omp for schedule(static)
      EACH_HEAD learn_back(x, m, d, n, start, h, &own);
#pragma omp for schedule(static)
      EACH_HEAD join_back(x, d, n, start, h);
#pragma omp for schedule(static)
      EACH_HEAD attend_back(x, m, d, n, start, h, &own);
#pragma omp for schedule(static) nowait
      EACH_HEAD recall_back(x, m, d, n, start, h, &own);
    }
    leave(&own);
  }
  free(weights);
}
