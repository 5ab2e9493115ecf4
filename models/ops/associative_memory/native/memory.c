/* Memories that learn by chunks, with their backward pass: of a chunk's tokens all gradients are taken at the weights that begin it,
   so what its tokens write and read are products of small matrices. A chunk after another, a head's weights in the second cache.

     x_l, e_l of the keys (network.h)        M_i = g_i W + p_i S + sum_j T_ij x_j^T e_j (shares.h)
     y_l = h_l M_i,  h_0 = q, h_{l+1} = act(y_l)        the next chunk's W and S are the last token's M and S

   SIMPLEX  the first token steps in logarithms, before all of this (retained.h)       SCALED  M is divided by its norm
   ORTHOGONAL  M_i = g_i W, and the last token's g W + amount NS(S) (newton_schulz.h)   INNER  test-time training

   REAL float or double   LANES divides H and V   DEPTH layers   K, H, V width of keys, hidden units, values   BIAS 0 or 1
   ACTIVATION 0 gelu, 1 silu, 2 gelu by tanh   RESIDUAL, LOSS as in loss.h   MOMENTUM whether there is an S

   Layouts: q [batch, time, heads, K]; k [.., K] and aim [.., V] with the window before; gates [.., heads]; states [batch, heads, W and
   S, weights]. `kept` holds a record of each chunk's weights and, behind them, with INNER the sums before and after the text. */
#include "../../native.h"
#include "../../tiles.h"

#include "loss.h"

#include "network.h"

#include "shares.h"

#include "retained.h"

#include "newton_schulz.h"

#define SUMMED (MOMENTUM && !INNER)
#define RECORD (SIZE * (1 + SUMMED + SIMPLEX) + (SCALED ? UP(DEPTH) : 0))

#include "forward.h"

#include "backward.h"

/* Numbers of a chunk's trace and of a record, how many chunks there are, numbers of a chunk's shares and of its gradients. */
void counts(const text *x, long *found) {
  trace t;
  shares s;
  slopes k;
  real none;
  long rows = x->chunk < x->time ? x->chunk : x->time, keys = rows + x->window - 1;
  found[0] = lay_trace(&t, &none, rows, keys) - &none;
  found[1] = RECORD, found[2] = pieces(x);
  found[3] = lay_shares(&s, &none, rows, UP(keys)) - &none, found[4] = lay_slopes(&k, &none, keys) - &none;
}

static void enter_state(const real *from, real *to) {
  memset(to, 0, SIZE * sizeof(real));
  LAYERS(l) {
    memcpy(to + AT(l), from, ROWS(l) * OUT(l) * sizeof(real));
    from += ROWS(l) * OUT(l);
  }
}

static real *leave_state(const real *from, real *to) {
  LAYERS(l) {
    memcpy(to, from + AT(l), ROWS(l) * OUT(l) * sizeof(real));
    to += ROWS(l) * OUT(l);
  }
  return to;
}

static long numbers(void) {
  long count = 0;
  LAYERS(l) count += ROWS(l) * OUT(l);
  return count;
}

/* The chunk before which the state that is handed out stands: the open one, whose tokens are read again; with INNER the end. */
static long handed_out(const text *x) { return INNER || (x->place + x->time) % x->chunk == 0 ? pieces(x) : pieces(x) - 1; }

static void forward_head(const text *x, long b, long h, desk *d, real *state, real *traces, long trace_size, real *y) {
  long count = pieces(x), out = handed_out(x);
  enter_state(state, record(d, 0));
  if (MOMENTUM) enter_state(state + numbers(), sum_before(x, d, 0));
  scale_anew(record(d, 0), &x->rule);
  for (long i = 0; i < count; i++) {
    if (i == out) leave_state(record(d, i), state);
    if (i == out && MOMENTUM) leave_state(sum_before(x, d, i), state + numbers());
    chunk_forward(x, b, h, i, d, traces + (d->kept_all ? i : 0) * trace_size, y);
  }
  if (out < count) return;
  leave_state(record(d, count), state);
  if (MOMENTUM) leave_state(sum_after(x, d, count - 1), state + numbers());
}

/* state: the first one on entry, the one behind on return. traces and kept, both or neither NULL, serve the backward pass. */
void forward(const text *x, real *state, real *y, real *traces, real *kept, int threads) {
  long found[5], room = room_for(x), states = (1 + MOMENTUM) * numbers();
  counts(x, found);
  long all = (found[2] + 1) * RECORD + (INNER ? 2 * SIZE : 0), few = 2 * RECORD + 2 * SIZE;
#pragma omp parallel num_threads(threads)
  {
    real *own = malloc((few + found[0] + found[3] + 2 * room + (ORTHOGONAL ? NS_ROOM : 0)) * sizeof(real));
    desk d = {own, own + few, own + few + room, own + few + 2 * room, own + few + 2 * room + found[3], kept ? found[2] : 0};
    real *own_trace = d.orthogonal + (ORTHOGONAL ? NS_ROOM : 0);
#pragma omp for collapse(2) schedule(static)
    for (long b = 0; b < x->batch; b++)
      for (long h = 0; h < x->heads; h++) {
        long head = b * x->heads + h;
        if (kept) d.kept = kept + head * all;
        forward_head(x, b, h, &d, state + head * states, kept ? traces + head * found[2] * found[0] : own_trace, found[0], y);
      }
    free(own);
  }
}

static void backward_head(const text *x, long b, long h, const desk *own, real *traces, long trace_size, const real *dy, real *dstate,
                          const gradients *d, workbench *w) {
  long count = pieces(x), out = handed_out(x);
  memset(w->G, 0, SIZE * sizeof(real));
  if (MOMENTUM) memset(w->GS, 0, SIZE * sizeof(real));
  LAYERS(l) w->scale_next[l] = 0;
  for (long i = count; i >= 0; i--) {
    if (i < count) chunk_backward(x, b, h, i, own, traces + i * trace_size, dy, d, w);
    if (i == out) {
      enter_state(dstate, w->B);
      add_times(w->G, w->B, 1, SIZE);
      if (MOMENTUM) enter_state(dstate + numbers(), w->B), add_times(w->GS, w->B, 1, SIZE);
    }
  }
  if (SCALED) LAYERS(l) {
      const real *first = record(own, 0);
      scale_back(first + AT(l), WIDE(l) * OUT(l), scales((real *)first)[l], w->scale_next[l], &x->rule, w->G + AT(l));
    }
  leave_state(w->G, dstate);
  if (MOMENTUM) leave_state(w->GS, dstate + numbers());
}

/* dstate: the gradient of the state behind on entry, of the first one on return; those in d are 0 on entry. */
void backward(const text *x, real *traces, real *kept, const real *dy, real *dstate, const gradients *d, int threads) {
  long found[5], room = room_for(x), states = (1 + MOMENTUM) * numbers();
  counts(x, found);
  long all = (found[2] + 1) * RECORD + (INNER ? 2 * SIZE : 0);
#pragma omp parallel num_threads(threads)
  {
    long parts[] = {SIZE, SIZE, SIZE, SIZE, SIZE, room, room, room, room, 2 * found[3], found[4], ORTHOGONAL ? NS_ROOM : 0}, total = 0;
    for (int i = 0; i < 12; i++) total += parts[i];
    real *own = malloc(total * sizeof(real)), *at = own, *place[12];
    for (int i = 0; i < 12; i++) place[i] = at, at += parts[i];
    workbench w = {place[0], place[1], place[2], place[3], place[4], place[5], place[6], place[7], place[8], place[9], place[10], place[11]};
#pragma omp for collapse(2) schedule(static)
    for (long b = 0; b < x->batch; b++)
      for (long h = 0; h < x->heads; h++) {
        long head = b * x->heads + h;
        desk kept_here = {.kept = kept + head * all, .kept_all = found[2]};
        backward_head(x, b, h, &kept_here, traces + head * found[2] * found[0], found[0], dy, dstate + head * states, d, &w);
      }
    free(own);
  }
}
