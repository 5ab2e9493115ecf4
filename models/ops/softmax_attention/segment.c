/* Softmax attention of few rows over few, whose shares are kept: causal inside a segment with rotary positions, or over all columns
   without. A head goes through alone, forward and back; threads part heads, so that their number changes no digit.

   REAL float or double; LANES what a register holds and what divides a head's width W.
   Layouts: q [texts, rows, heads, W], k and v [texts, columns, heads, W], each with steps of its own between texts and rows; y and dy
   [texts, rows, heads, W]; cosine, sine [rows, W / 2] or NULL, and then nothing is turned; shares [texts, heads, rows, UP(columns)]. */
#include "../native.h"
#include "../tiles.h"

#define BLOCK 24   /* rows that meet as many columns as the last of them sees */
#define FEW 16384 /* scores up to which threads are not worth their start */

typedef struct {
  real *at;
  long apart, down;
} rows_of;

typedef struct {
  long texts, rows, columns, heads, W;
  double scale;
  rows_of q, k, v, y;
  const real *cosine, *sine;
  real *shares;
  int causal;
} text;

static inline long least(long a, long b) { return a < b ? a : b; }

/* to[count, W] = scale from, each row turned to its place, or back with sign -1 */
static void turn(const text *t, const real *from, long down, real *to, long pitch, long count, real scale, real sign) {
  long half = t->W / 2;
  for (long r = 0; r < count; r++, from += down, to += pitch) {
    if (!t->cosine)
      for (long i = 0; i < t->W; i++) to[i] = from[i] * scale;
    else
      for (long i = 0; i < half; i++) {
        real c = t->cosine[r * half + i] * scale, s = t->sine[r * half + i] * sign * scale, first = from[i], second = from[half + i];
        to[i] = first * c - second * s, to[half + i] = second * c + first * s;
      }
  }
}

/* The first `count` scores of a row become shares that sum to 1, those behind them, up to `all_of`, 0. */
static void softmax(real *row, long count, long all_of) {
  vec most = all(-INFINITY), total = {0};
  for (long c = 0; c < count; c += LANES) {
    vec x = load(row + c);
    if (count - c < LANES) x = choose(LANE < (WHOLE)(count - c), x, all(-INFINITY)), store(row + c, x);
    most = choose(x > most, x, most);
  }
  real high = most[0];
  for (int i = 1; i < LANES; i++) high = most[i] > high ? most[i] : high;
  for (long c = 0; c < count; c += LANES) {
    vec x = exp_of_negative(load(row + c) - high);
    store(row + c, x), total += x;
  }
  real share = 1 / sum(total);
  for (long c = 0; c < count; c += LANES) store(row + c, load(row + c) * share);
  for (long c = UP(count); c < all_of; c += LANES) store(row + c, (vec){0});
}

static void head_forward(const text *t, long n, long h, real *room) {
  long W = t->W, R = UP(t->columns), rows = t->rows;
  real *q = room, *k = q + rows * W, *kt = k + R * W, *P = kt + R * W;
  if (t->shares) P = t->shares + (n * t->heads + h) * rows * R;
  turn(t, t->q.at + n * t->q.apart + h * W, t->q.down, q, W, rows, (real)t->scale, 1);
  turn(t, t->k.at + n * t->k.apart + h * W, t->k.down, k, W, t->columns, 1, 1);
  memset(k + t->columns * W, 0, (R - t->columns) * W * sizeof(real));
  transpose(k, W, kt, R, R, W);
  for (long i = 0; i < rows; i += BLOCK) {
    long high = least(BLOCK, rows - i), seen = t->causal ? i + high : t->columns;
    product(q + i * W, W, 1, kt, R, W, 0, 1, P + i * R, R, high, UP(seen));
    for (long r = i; r < i + high; r++) softmax(P + r * R, t->causal ? r + 1 : t->columns, R);
    product(P + i * R, R, 1, t->v.at + n * t->v.apart + h * W, t->v.down, seen, 0, 1, t->y.at + n * t->y.apart + h * W + i * t->y.down,
            t->y.down, high, W);
  }
}

/* y of the text, and its shares where there is room for them */
void segment_forward(const text *t, int threads) {
  long R = UP(t->columns), size = t->rows * t->W + 2 * R * t->W + t->rows * R;
#pragma omp parallel num_threads(threads) if (threads > 1 && t->texts * t->heads * t->rows * R > FEW)
  {
    real *room = malloc(size * sizeof(real));
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < t->texts; n++)
      for (long h = 0; h < t->heads; h++) head_forward(t, n, h, room);
    free(room);
  }
}

static void head_backward(const text *t, const rows_of *dq, const rows_of *dk, const rows_of *dv, long n, long h, real *room) {
  long W = t->W, R = UP(t->columns), rows = t->rows, most = R > rows ? R : rows, down = t->y.down;
  real *q = room, *k = q + rows * W, *v = k + R * W, *vt = v + R * W, *d = vt + R * W, *S = d + most * W;
  const real *P = t->shares + (n * t->heads + h) * rows * R, *dy = t->y.at + n * t->y.apart + h * W;
  turn(t, t->q.at + n * t->q.apart + h * W, t->q.down, q, W, rows, (real)t->scale, 1);
  turn(t, t->k.at + n * t->k.apart + h * W, t->k.down, k, W, t->columns, 1, 1);
  for (long c = 0; c < t->columns; c++) memcpy(v + c * W, t->v.at + n * t->v.apart + h * W + c * t->v.down, W * sizeof(real));
  memset(v + t->columns * W, 0, (R - t->columns) * W * sizeof(real));
  transpose(v, W, vt, R, R, W);
  for (long i = 0; i < rows; i += BLOCK) {
    long high = least(BLOCK, rows - i), seen = t->causal ? i + high : t->columns;
    product(dy + i * down, down, 1, vt, R, W, 0, 1, S + i * R, R, high, UP(seen));
    for (long r = i; r < i + high; r++) {
      vec met = {0};
      for (long c = 0; c < seen; c += LANES) met += load(S + r * R + c) * load(P + r * R + c);
      real along = sum(met);
      for (long c = 0; c < seen; c += LANES) store(S + r * R + c, load(P + r * R + c) * (load(S + r * R + c) - along));
    }
    product(S + i * R, R, 1, k, W, seen, 0, 1, d + i * W, W, high, W);
  }
  turn(t, d, W, dq->at + n * dq->apart + h * W, dq->down, rows, (real)t->scale, -1);
  for (long j = 0; j < t->columns; j += BLOCK) { /* a column hears the rows from its own on */
    long wide = least(BLOCK, t->columns - j), from = t->causal ? j : 0;
    product(P + from * R + j, 1, R, dy + from * down, down, rows - from, 0, 1, dv->at + n * dv->apart + h * W + j * dv->down, dv->down,
            wide, W);
    product(S + from * R + j, 1, R, q + from * W, W, rows - from, 0, 1, d + j * W, W, wide, W);
  }
  turn(t, d, W, dk->at + n * dk->apart + h * W, dk->down, t->columns, 1, -1);
}

/* Gradients of q, k and v; the text's y is that of the output. */
void segment_backward(const text *t, const rows_of *dq, const rows_of *dk, const rows_of *dv, int threads) {
  long R = UP(t->columns), most = R > t->rows ? R : t->rows, size = (t->rows + 3 * R + most) * t->W + t->rows * R;
#pragma omp parallel num_threads(threads) if (threads > 1 && t->texts * t->heads * t->rows * R > FEW)
  {
    real *room = malloc(size * sizeof(real));
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < t->texts; n++)
      for (long h = 0; h < t->heads; h++) head_backward(t, dq, dk, dv, n, h, room);
    free(room);
  }
}
