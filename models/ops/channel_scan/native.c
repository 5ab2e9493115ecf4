/* A Mamba block over the pieces of a token's channels, both ways, with its backward pass. Tokens lie side by side in a vector, for a
   token has few pieces of few channels and knows of no other; a weight is one number for all of them.

     p, z = W_in x    c = bias + sum_k w_k p_(t-3+k)    s = silu(c)    r, B, C = W_x s    delta = softplus(W_2 r + bias_2)
     h[n] = e^{delta A[n]} h[n] + delta s B[n]          y = sum_n C[n] h[n] + skip s       out += W_out (y silu(z))

   REAL float or double; LANES tokens a vector; W width of a piece, D channels, N states a channel, R rank, KERNEL of the convolution.

   Layouts: x, y [rows, pieces, W]; weights [2, WEIGHTS], forwards and backwards, each in the order of the enum below. */
#include "../native.h"
#define INLINE static inline __attribute__((always_inline))

enum {
  IN = 0, TAPS = IN + 2 * D * W, BIAS = TAPS + D * KERNEL, SELECT = BIAS + D, STEP = SELECT + (R + 2 * N) * D,
  STEP_BIAS = STEP + D * R, RATES = STEP_BIAS + D, SKIP = RATES + D * N, OUT = SKIP + D, WEIGHTS = OUT + W * D
};

typedef struct {
  long rows, pieces;
  const real *x, *weights;
} text;

/* What LANES tokens make of a piece; p has the pieces before it in front of it. */
typedef struct {
  vec z[D], c[D], s[D], selected[R + 2 * N], before_softplus[D], delta[D], y[D], o[D], decay[D][N], h[D][N]; /* h: after the piece */
} piece;

/* Gradients of a piece's products: of p and z, of delta before its softplus, of r, B and C. */
typedef struct {
  vec both[2 * D], delta[D], selected[R + 2 * N];
} slopes;

/* to[pieces, W] = LANES rows from `row` on, and zeros where there are no more; or back. */
static void enter(const real *from, long row, long rows, long count, vec *to) {
  for (long i = 0; i < count; i++)
    for (int lane = 0; lane < LANES; lane++) to[i][lane] = row + lane < rows ? from[(row + lane) * count + i] : 0;
}

static void leave(const vec *from, long row, long rows, long count, real *to) {
  for (int lane = 0; lane < LANES && row + lane < rows; lane++)
    for (long i = 0; i < count; i++) to[(row + lane) * count + i] = from[i][lane];
}

static inline vec softplus(vec x) { return choose(x > 0, x, (vec){0}) + log_of_one_and(quick_exp_of_negative(choose(x < 0, x, -x))); }
static inline vec silu_slope(vec x) {
  vec s = sigmoid(x);
  return s * (1 + x * (1 - s));
}

/* to[rows] += A x; A [rows, columns] */
INLINE void apply(const real *A, const vec *x, vec *to, const int rows, const int columns) {
  for (int i = 0; i < rows; i++) {
    vec total = to[i];
    for (int j = 0; j < columns; j++) total += x[j] * A[i * columns + j];
    to[i] = total;
  }
}

/* Back over it: dx += A^T dy. */
INLINE void apply_back(const real *A, const vec *dy, vec *dx, const int rows, const int columns) {
  for (int j = 0; j < columns; j += 4) {
    vec total[4];
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++)
      if (j + n < columns) total[n] = dx[j + n];
    for (int i = 0; i < rows; i++) {
      vec slope = dy[i];
#pragma GCC unroll 4
      for (int n = 0; n < 4; n++)
        if (j + n < columns) total[n] += slope * A[i * columns + j + n];
    }
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++)
      if (j + n < columns) dx[j + n] = total[n];
  }
}

/* dA[rows, columns] += dy x^T, summed over `count` pieces, whose dy and x lie `down` and `along` vectors apart: in a register, where
   a piece after the other would read and write all of dA. */
INLINE void gather(const vec *dy, long down, const vec *x, long along, long count, vec *dA, const int rows, const int columns) {
  for (int i = 0; i < rows; i += 4)
    for (int j = 0; j < columns; j += 2) {
      vec total[4][2] = {{{0}}};
      for (long t = 0; t < count; t++)
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++)
#pragma GCC unroll 2
          for (int s = 0; s < 2; s++)
            if (i + r < rows && j + s < columns) total[r][s] += dy[t * down + i + r] * x[t * along + j + s];
#pragma GCC unroll 4
      for (int r = 0; r < 4; r++)
#pragma GCC unroll 2
        for (int s = 0; s < 2; s++)
          if (i + r < rows && j + s < columns) dA[(i + r) * columns + j + s] += total[r][s];
    }
}

/* One piece: p are the convolution's inputs, the last KERNEL up to this one, of which the last is made here; h that before it. */
static void forward_piece(const real *w, const vec *x, vec (*p)[D], const vec (*h)[N], piece *now, vec *out) {
  vec both[2 * D] = {{0}};
  apply(w + IN, x, both, 2 * D, W);
  memcpy(p[KERNEL - 1], both, sizeof p[0]), memcpy(now->z, both + D, sizeof now->z);
  for (int d = 0; d < D; d++) {
    vec c = all(w[BIAS + d]);
    for (int k = 0; k < KERNEL; k++) c += p[k][d] * w[TAPS + d * KERNEL + k];
    now->c[d] = c, now->s[d] = c * sigmoid(c), now->before_softplus[d] = all(w[STEP_BIAS + d]);
  }
  memset(now->selected, 0, sizeof now->selected);
  apply(w + SELECT, now->s, now->selected, R + 2 * N, D);
  apply(w + STEP, now->selected, now->before_softplus, D, R);
  const vec *B = now->selected + R, *C = B + N;
  /* One function a loop: a softplus between two channels' states would be waited for, and so would a gate. */
  for (int d = 0; d < D; d++) now->delta[d] = softplus(now->before_softplus[d]);
  for (int d = 0; d < D; d++) {
    vec delta = now->delta[d], u = delta * now->s[d], y = now->s[d] * w[SKIP + d];
    for (int n = 0; n < N; n++) {
      vec decay = now->decay[d][n] = quick_exp_of_negative(delta * w[RATES + d * N + n]);
      vec next = now->h[d][n] = decay * h[d][n] + u * B[n];
      y += C[n] * next;
    }
    now->y[d] = y;
  }
  for (int d = 0; d < D; d++) now->o[d] = now->y[d] * now->z[d] * sigmoid(now->z[d]);
  apply(w + OUT, now->o, out, W, D);
}

/* y: what both ways make of x. */
void forward(const text *in, real *y, int threads) {
  long wide = in->pieces * W;
#pragma omp parallel num_threads(threads)
  {
    char *own = malloc(2 * wide * sizeof(vec) + 2 * sizeof(piece) + sizeof(vec));
    vec *x = (vec *)own, *out = x + wide;
    piece *now = (piece *)(out + wide);
#pragma omp for schedule(static)
    for (long row = 0; row < in->rows; row += LANES) {
      enter(in->x, row, in->rows, wide, x), memset(out, 0, wide * sizeof(vec));
      for (int way = 0; way < 2; way++) {
        vec p[KERNEL][D];
        memset(p, 0, sizeof p), memset(now, 0, 2 * sizeof(piece));
        for (long t = 0; t < in->pieces; t++) {
          long at = (way ? in->pieces - 1 - t : t) * W;
          memmove(p[0], p[1], sizeof p - sizeof p[0]);
          forward_piece(in->weights + way * WEIGHTS, x + at, p, (const vec(*)[N])now[!(t & 1)].h, now + (t & 1), out + at);
        }
      }
      leave(out, row, in->rows, wide, y);
    }
    free(own);
  }
}

/* Back over the state of one piece: g is the gradient of h after it on entry, of h before it on return. */
static inline void state_back(const real *w, const piece *now, const vec (*before)[N], const vec *dy, vec (*g)[N], vec *ds, vec *ddelta,
                              vec *dselected, vec *dw) {
  const vec *B = now->selected + R, *C = B + N;
  vec *dB = dselected + R, *dC = dB + N;
  for (int d = 0; d < D; d++) {
    vec delta = now->delta[d], u = delta * now->s[d], du = {0}, slow = {0}, dy_d = dy[d];
    for (int n = 0; n < N; n++) {
      vec slope = g[d][n] + dy_d * C[n], through = slope * now->decay[d][n], exponent = through * before[d][n];
      dC[n] += dy_d * now->h[d][n], dB[n] += u * slope, du += slope * B[n];
      g[d][n] = through, dw[RATES + d * N + n] += exponent * delta, slow += exponent * w[RATES + d * N + n];
    }
    ds[d] += du * delta, ddelta[d] = slow + du * now->s[d];
  }
}

/* One piece backward. p as in `forward_piece`, dp their gradients, those of later pieces in them; dx and dw are added to, dw but
   for what `gather` gathers. */
static void backward_piece(const real *w, const vec (*p)[D], const vec (*before)[N], const piece *now, const vec *dout,
                           vec (*dp)[D], vec (*g)[N], slopes *made, vec *dx, vec *dw) {
  vec d_o[D] = {{0}}, dy[D], ds[D], *ddelta = made->delta, *dselected = made->selected, *both = made->both;
  memset(dselected, 0, sizeof made->selected);
  apply_back(w + OUT, dout, d_o, W, D);
  for (int d = 0; d < D; d++) {
    vec z = now->z[d];
    dy[d] = d_o[d] * z * sigmoid(z), both[D + d] = d_o[d] * now->y[d] * silu_slope(z);
    ds[d] = dy[d] * w[SKIP + d], dw[SKIP + d] += dy[d] * now->s[d];
  }
  state_back(w, now, before, dy, g, ds, ddelta, dselected, dw);
  for (int d = 0; d < D; d++) ddelta[d] *= sigmoid(now->before_softplus[d]), dw[STEP_BIAS + d] += ddelta[d];
  apply_back(w + STEP, ddelta, dselected, D, R);
  apply_back(w + SELECT, dselected, ds, R + 2 * N, D);
  for (int d = 0; d < D; d++) {
    vec dc = ds[d] * silu_slope(now->c[d]);
    dw[BIAS + d] += dc;
    for (int k = 0; k < KERNEL; k++) {
      dw[TAPS + d * KERNEL + k] += dc * p[k][d];
      dp[k][d] += dc * w[TAPS + d * KERNEL + k];
    }
    both[d] = dp[KERNEL - 1][d];
  }
  apply_back(w + IN, both, dx, 2 * D, W);
}

/* The gradients of the maps' weights; x and dy are the first piece's, `step` vectors before the next one's. */
static void gather_all(const vec *x, const vec *dy, long step, const piece *now, const slopes *made, long count, vec *dw) {
  const long a = sizeof *made / sizeof(vec), b = sizeof *now / sizeof(vec);
  gather(made->both, a, x, step, count, dw + IN, 2 * D, W);
  gather(made->selected, a, now->s, b, count, dw + SELECT, R + 2 * N, D);
  gather(made->delta, a, now->selected, b, count, dw + STEP, D, R);
  gather(dy, step, now->o, b, count, dw + OUT, W, D);
}

/* dx of LANES rows, and dw [2, WEIGHTS] added to; own has room for a piece more than there are, p and dp for KERNEL - 1 more. */
static void rows_back(const text *in, const vec *x, const vec *dy, vec *dx, vec *dw, piece *own, slopes *made, vec (*p)[D],
                      vec (*dp)[D], vec *unread) {
  long count = in->pieces, all_p = (count + KERNEL - 1) * sizeof *p;
  for (int way = 0; way < 2; way++) {
    const real *w = in->weights + way * WEIGHTS;
    vec g[D][N];
    memset(p, 0, all_p), memset(dp, 0, all_p), memset(g, 0, sizeof g), memset(own, 0, sizeof *own);
    for (long t = 0; t < count; t++)
      forward_piece(w, x + (way ? count - 1 - t : t) * W, p + t, (const vec(*)[N])own[t].h, own + t + 1, unread);
    for (long t = count - 1; t >= 0; t--) {
      long at = (way ? count - 1 - t : t) * W;
      backward_piece(w, (const vec(*)[D])(p + t), (const vec(*)[N])own[t].h, own + t + 1, dy + at, dp + t, g, made + t, dx + at,
                     dw + way * WEIGHTS);
    }
    long first = (way ? count - 1 : 0) * W;
    gather_all(x + first, dy + first, way ? -W : W, own + 1, made, count, dw + way * WEIGHTS);
  }
}

/* dweights [parts, 2, WEIGHTS]: rows are cut into as many parts whatever the number of threads, so sums are made in one order. */
void backward(const text *in, const real *dy, real *dx, real *dweights, long parts, int threads) {
  long wide = in->pieces * W, blocks = (in->rows + LANES - 1) / LANES, p = in->pieces + KERNEL - 1;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (long part = 0; part < parts; part++) {
    vec *own = malloc((3 * wide + 2 * WEIGHTS + 2 * p * D + W) * sizeof(vec) + (in->pieces + 1) * (sizeof(piece) + sizeof(slopes)));
    vec *x = own, *slope = x + wide, *back = slope + wide, *dw = back + wide, *taps = dw + 2 * WEIGHTS, *unread = taps + 2 * p * D;
    piece *pieces = (piece *)(unread + W);
    slopes *made = (slopes *)(pieces + in->pieces + 1);
    vec(*inputs)[D] = (vec(*)[D])taps, (*back_to)[D] = inputs + p;
    memset(dw, 0, 2 * WEIGHTS * sizeof(vec)), memset(unread, 0, W * sizeof(vec));
    for (long block = blocks * part / parts; block < blocks * (part + 1) / parts; block++) {
      enter(in->x, block * LANES, in->rows, wide, x), enter(dy, block * LANES, in->rows, wide, slope);
      memset(back, 0, wide * sizeof(vec));
      rows_back(in, x, slope, back, dw, pieces, made, inputs, back_to, unread);
      leave(back, block * LANES, in->rows, wide, dx);
    }
    for (long i = 0; i < 2 * WEIGHTS; i++) dweights[part * 2 * WEIGHTS + i] = sum(dw[i]);
    free(own);
  }
}
