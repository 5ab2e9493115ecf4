/* All layers of one segment, forward and back: attention inside the segment, a reading of held rows where there are any, SwiGLU.

     x += W_out Attn(RMSNorm(x))
     x += W_find Attn(W_ask RMSNorm(x) -> W_held rows)
     x += W_down (silu(W_gate n) * W_rise n),  n = RMSNorm(x)

   REAL float or double; LANES what a register holds and what divides a head's width.
   Between the two attentions, which part heads, every number hangs on its own row alone: there threads part rows. Each number is made by
   one thread in one order, however many there are. A norm's gain lies in the maps behind it. */
#include "../softmax_attention/segment.c"
#include "../dense/rows.c"

#include "text.h"
#include "layers.h"

static inline long room_of(const layers *x) { /* of one head's attention or of a chunk's rows, forward or back */
  long W = x->width / x->heads, columns = x->held > x->rows ? x->held : x->rows, R = UP(columns);
  long head = (x->rows + 5 * R) * W + x->rows * R, chunk = HIGH * (UP(x->units) + x->width);
  return head > chunk ? head : chunk;
}

/* Rows in so many chunks that all threads have some. */
static inline long chunk_of(long rows, int threads) { return rows ? least(HIGH, (rows + threads - 1) / threads) : 1; }

#define EACH_CHUNK(w, rows, high)                        \
  for (long chunk = 0; chunk < (rows); chunk += (high)) \
    for (long once = ((w).from = chunk, (w).count = least(high, (rows) - chunk), 1); once; once = 0)
#define EACH_HEAD(x)                                           \
  for (long item = 0; item < (x)->texts * (x)->heads; item++) \
    for (long n = item / (x)->heads, h = item % (x)->heads, once = 1; once; once = 0)

/* Rows `given` [texts, rows, width] and slots [texts, held, width] of one segment -> rows behind the last norm, without its gain. */
void read_layers(const layers *x, long piece, const real *given, const real *slots, real *unit, real *scale, int threads) {
  long rows = x->texts * x->rows, wide = x->texts * x->held, high = chunk_of(rows, threads), D = x->width;
  real *stream = malloc(rows * D * sizeof(real));
#pragma omp parallel num_threads(threads)
  {
    work w = {x, piece, 0, 0, stream, malloc(room_of(x) * sizeof(real))};
#pragma omp for schedule(static) nowait
    EACH_CHUNK(w, wide, chunk_of(wide, threads)) hold(&w, slots);
#pragma omp for schedule(static)
    EACH_CHUNK(w, rows, high) {
      memcpy(stream + w.from * D, given + w.from * D, w.count * D * sizeof(real));
      enter(&w, 0);
    }
    for (long l = 0; l < x->depth; l++) {
      text within = inside(x, l, piece, kept(x, ATTENDED, l, piece)), beyond = across(x, l, piece, kept(x, FOUND, l, piece));
#pragma omp for schedule(static)
      EACH_HEAD(x) head_forward(&within, n, h, w.room);
#pragma omp for schedule(static)
      EACH_CHUNK(w, rows, high) ask(&w, l);
      if (x->held) {
#pragma omp for schedule(static)
        EACH_HEAD(x) head_forward(&beyond, n, h, w.room);
      }
#pragma omp for schedule(static)
      EACH_CHUNK(w, rows, high) {
        feed(&w, l);
        if (l + 1 < x->depth)
          enter(&w, l + 1);
        else
          norm_forward(stream + w.from * D, 0, 0, unit + w.from * D, scale + w.from, w.count, D, x->eps, 1);
      }
    }
    free(w.room);
  }
  free(stream);
}

/* The gradients of both inputs from that of the rows; those of what the maps made stay in x->slopes. */
void layers_back(const layers *x, long piece, const real *d_unit, const real *unit, const real *scale, real *d_given, real *d_slots,
                 int threads) {
  long rows = x->texts * x->rows, high = chunk_of(rows, threads), D = x->width, wide = x->texts * x->held;
  real *dy = malloc(rows * D * sizeof(real));
#pragma omp parallel num_threads(threads)
  {
    work w = {x, piece, 0, 0, d_given, malloc(room_of(x) * sizeof(real))};
    for (long l = x->depth - 1; l >= 0; l--) {
      text within = inside(x, l, piece, dy), beyond = across(x, l, piece, dy);
      long k = x->held * 2 * D, r = x->rows;
      real *q = slope(x, D_QKV, l, piece), *kv = slope(x, D_HELD, l, piece);
      rows_of dq = {q, r * 3 * D, 3 * D}, dk = {q + D, r * 3 * D, 3 * D}, dv = {q + 2 * D, r * 3 * D, 3 * D};
      rows_of asked = {slope(x, D_ASKED, l, piece), r * D, D}, keys = {kv, k, 2 * D}, values = {kv + D, k, 2 * D};
#pragma omp for schedule(static)
      EACH_CHUNK(w, rows, high) {
        long at = w.from * D;
        if (l + 1 < x->depth)
          enter_back(&w, l + 1);
        else
          norm_backward(d_unit + at, 0, unit + at, scale + w.from, slope(x, D_DOWN, l, piece) + at, w.count, D, 1);
        feed_back(&w, l, dy);
      }
      if (x->held) {
#pragma omp for schedule(static)
        EACH_HEAD(x) head_backward(&beyond, &asked, &keys, &values, n, h, w.room);
#pragma omp for schedule(static)
        EACH_CHUNK(w, rows, high) ask_back(&w, l, dy);
      }
#pragma omp for schedule(static)
      EACH_HEAD(x) head_backward(&within, &dq, &dk, &dv, n, h, w.room);
    }
#pragma omp for schedule(static) nowait
    EACH_CHUNK(w, rows, high) enter_back(&w, 0);
#pragma omp for schedule(static)
    EACH_CHUNK(w, wide, chunk_of(wide, threads)) hold_back(&w, d_slots);
    free(w.room);
  }
  free(dy);
}
