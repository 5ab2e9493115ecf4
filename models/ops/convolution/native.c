/* Linear systems that are the same at every token, and liquid ones, with their backward pass. Every channel has n complex numbers
   a degree; with <p, h> = 2 Re sum_n p_n h_n and h0 = 1

     hp_t = a hp_{t-1} + b x_t h(p-1)_{t-1},   y_t = <c, h1_t + .. + hP_t>
     where ERASE:  h_t = a h_{t-1} - u e_t + b x_t,   e_t = <v, h_{t-1}>

   Backward, gp being half the conjugate of hp's gradient, it is the same law from the end, reads and writes changing places:

     gp_t = a gp_{t+1} + b x_{t+1} g(p+1)_{t+1} + c dy_t,   dx_t = sum_p <b, gp_t h(p-1)_{t-1}>
     where ERASE:  g_t = a g_{t+1} - v f_{t+1} + c dy_t,   f_t = <u, g_t>

   LANES channels lie side by side. A channel's numbers do not meet without ERASE, so each goes through PIECE tokens in registers.
   With it they do so through STEPS tokens, and backward, once e and f are known, through PIECE again.

   REAL float or double; LANES; DEGREE is P; ERASE 0 or 1, with one degree.
   Layouts: x, y, dx, dy, e [batch, time, channels]; a, b, c, u, v [channels, n, 2]; states [batch, DEGREE, channels, n, 2];
   kept [groups, batch, pieces, padded n, DEGREE] numbers, a state before every piece. */
#include "native.h"

typedef struct {
  real *x, *system[5];
} gradients;

/* How a system with erasing is walked: forward, or back with reads and writes in each other's places. `looks` are what sees,
   times a^i, and kernels what it sees of a write and an erasure i transitions ago. */
typedef struct {
  const number *write, *read, *erase;
  number *looks[STEPS];
  vec of_write[STEPS], of_erase[STEPS];
} view;

static view view_of(const group *own, int write, int read, int erase, int see) {
  number *const *s = own->system;
  view found = {s[write], s[read], s[erase]};
  for (int i = 0; i < STEPS; i++) {
    found.looks[i] = own->looks + i * own->n;
    for (long j = 0; j < own->n; j++) {
      number look = i ? product(s[0][j], found.looks[i - 1][j]) : s[see][j];
      found.looks[i][j] = look;
      found.of_write[i] = plus_half(found.of_write[i], look, found.write[j]);
      found.of_erase[i] = plus_half(found.of_erase[i], look, found.erase[j]);
    }
    found.of_write[i] += found.of_write[i], found.of_erase[i] += found.of_erase[i];
  }
  return found;
}

/* `count` tokens of the law with erasing. What each sees follows from what the state before them shows to the next STEPS, so that
   numbers go through all of them in registers, as without erasing. seen[t] is e_t, or f_t where `way` is -1: from the last on. */
static inline __attribute__((always_inline)) void
together(group *own, const view *by, const vec *x, vec *y, vec *seen, const int count, const int way) {
  const number *a = own->system[0];
  const int back = way < 0;
  vec e[STEPS], out[STEPS] = {{0}}, shown[STEPS] = {{0}};
  for (int i = 0; i < count; i++) {
    e[i] = own->shown[i];
    for (int k = 0; k < i + back; k++) e[i] += by->of_write[i - 1 + back - k] * x[k * way];
    for (int k = 0; k < i; k++) e[i] -= by->of_erase[i - 1 - k] * e[k];
    seen[i * way] = e[i];
  }
  for (long j = 0; j < own->n; j++) {
    number h = own->state[j], write = by->write[j], read = by->read[j], erase = by->erase[j];
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
      if (back) h = plus_scaled(h, write, x[i * way]), out[i] = plus_half(out[i], read, h);
      h = plus_product(back ? scaled(erase, -e[i]) : less_scaled(scaled(write, x[i * way]), erase, e[i]), a[j], h);
      if (!back) out[i] = plus_half(out[i], read, h);
    }
    own->state[j] = h;
#pragma GCC unroll 8
    for (int i = 0; i < STEPS; i++) shown[i] = plus_half(shown[i], by->looks[i][j], h);
  }
  for (int i = 0; i < count; i++) y[i * way] = out[i];
  for (int i = 0; i < STEPS; i++) own->shown[i] = shown[i] + shown[i];
}

/* A piece of the law with erasing. y gathers halves. */
static inline __attribute__((always_inline)) void
coupled(group *own, const view *by, const vec *x, vec *y, vec *seen, long tokens, const int way) {
  long done = 0, first = way < 0 ? tokens - 1 : 0;
  for (; done + STEPS <= tokens; done += STEPS) {
    long t = first + done * way;
    together(own, by, x + t, y + t, seen + t, STEPS, way);
  }
  for (; done < tokens; done++) {
    long t = first + done * way;
    together(own, by, x + t, y + t, seen + t, 1, way);
  }
}

/* One number over a token that gives it b x: every degree meets the one below it as it was before. */
static inline void step(number h[DEGREE], number a, number given) {
#pragma GCC unroll 8
  for (int p = DEGREE - 1; p > 0; p--) h[p] = plus_product(product(given, h[p - 1]), a, h[p]);
  h[0] = plus_product(given, a, h[0]);
}

/* The gradients of the degrees before the token, from those after it; `seen` is what they were seen to show. */
static inline void step_back(number r[DEGREE], const number g[DEGREE], number a, number given, number seen) {
#pragma GCC unroll 8
  for (int p = 0; p + 1 < DEGREE; p++) r[p] = plus_product(product(given, g[p + 1]), a, g[p]);
  r[DEGREE - 1] = ERASE ? plus_product(seen, a, g[DEGREE - 1]) : product(a, g[DEGREE - 1]);
}

/* h1 + .. + hP */
static inline number whole_of(const number h[DEGREE]) {
  number sum = h[0];
#pragma GCC unroll 8
  for (int p = 1; p < DEGREE; p++) sum.r += h[p].r, sum.i += h[p].i;
  return sum;
}

/* A piece of the law without erasing, numbers one by one, each from its state. y gathers halves. */
static void apart(const group *own, const vec *x, vec *y, long tokens) {
  const number *a = own->system[0], *b = own->system[1], *c = own->system[2];
  for (long j = 0; j < own->n; j += TOGETHER) {
    number h[TOGETHER][DEGREE], *state = own->state + j * DEGREE;
    for (int k = 0; k < TOGETHER; k++)
      for (int p = 0; p < DEGREE; p++) h[k][p] = state[k * DEGREE + p];
    for (long t = 0; t < tokens; t++) {
      vec out = y[t];
      for (int k = 0; k < TOGETHER; k++) {
        step(h[k], a[j + k], scaled(b[j + k], x[t]));
        out = plus_half(out, c[j + k], whole_of(h[k]));
      }
      y[t] = out;
    }
    for (int k = 0; k < TOGETHER; k++)
      for (int p = 0; p < DEGREE; p++) state[k * DEGREE + p] = h[k][p];
  }
}

static void row_forward(group *own, const view *by, long row, real *state, real *y, real *e, number *kept) {
  const text *in = own->in;
  for (int p = 0; p < DEGREE; p++) gather(own->state + p, DEGREE, state + place_of(own, row, p), in->n, own->count);
  if (ERASE) together(own, by, NULL, NULL, NULL, 0, 1);
  for (long start = 0; start < in->time; start += PIECE) {
    long tokens = in->time - start < PIECE ? in->time - start : PIECE;
    long place = (row * in->time + start) * in->channels + own->first;
    vec given[PIECE], out[PIECE] = {{0}};
    rows_in(given, in->x + place, in->channels, tokens, own->count);
    if (kept) memcpy(kept + start / PIECE * own->n * DEGREE, own->state, own->n * DEGREE * sizeof(number));
    if (ERASE) {
      vec seen[PIECE];
      coupled(own, by, given, out, seen, tokens, 1);
      if (e) rows_out(e + place, seen, in->channels, tokens, own->count, 1);
    } else apart(own, given, out, tokens);
    rows_out(y + place, out, in->channels, tokens, own->count, 2);
  }
  for (int p = 0; p < DEGREE; p++) scatter(state + place_of(own, row, p), own->state + p, DEGREE, in->n, own->count, 1, 1);
}

/* state: the first one on entry, the last one on return. e and kept are NULL where no backward pass follows. */
void forward(const text *in, real *state, real *y, real *e, real *kept, int threads) {
  long pieces = (in->time + PIECE - 1) / PIECE, held = pieces * padded(in->n) * DEGREE;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long index = 0; index < (in->channels + LANES - 1) / LANES; index++) {
    group own = group_of(in, index);
    view by = ERASE ? view_of(&own, 1, 2, 3, 4) : (view){0};
    for (long row = 0; row < in->batch; row++)
      row_forward(&own, &by, row, state, y, e, kept ? (number *)kept + (index * in->batch + row) * held : NULL);
    free(own.room);
  }
}

/* What tokens of a piece give and are given: inputs, gradients of outputs and inputs, and with ERASE what is seen both ways. */
typedef struct {
  vec x[PIECE], dy[PIECE], dx[PIECE], e[PIECE], f[PIECE];
  long tokens;
} piece;

/* The states before each token of some numbers, from the piece's first; sums of the gradients of c, and of v. */
static void again(const group *own, long j, const piece *at, const number *first, number before[PIECE][TOGETHER][DEGREE]) {
  number *const *s = own->system, *const *d = own->sums, h[TOGETHER][DEGREE], dc[TOGETHER] = {{{0}}}, dv[TOGETHER] = {{{0}}};
  for (int k = 0; k < TOGETHER; k++)
    for (int p = 0; p < DEGREE; p++) h[k][p] = first[(j + k) * DEGREE + p];
  for (long t = 0; t < at->tokens; t++)
    for (int k = 0; k < TOGETHER; k++) {
      number given = scaled(s[1][j + k], at->x[t]);
      for (int p = 0; p < DEGREE; p++) before[t][k][p] = h[k][p];
      if (ERASE) given = less_scaled(given, s[3][j + k], at->e[t]), dv[k] = plus_scaled(dv[k], h[k][0], at->f[t]);
      step(h[k], s[0][j + k], given);
      dc[k] = plus_scaled(dc[k], whole_of(h[k]), at->dy[t]);
    }
  for (int k = 0; k < TOGETHER; k++) {
    d[2][j + k] = plus_scaled(d[2][j + k], dc[k], all(1));
    if (ERASE) d[4][j + k] = plus_scaled(d[4][j + k], dv[k], all(1));
  }
}

/* Some numbers backward through a piece: `later` are the gradients of their states after it on entry, before it on return.
   Sums of those of a, b and u. */
static void back(const group *own, long j, piece *at, number before[PIECE][TOGETHER][DEGREE], number *later) {
  number *const *s = own->system, *const *d = own->sums, r[TOGETHER][DEGREE];
  number da[TOGETHER] = {{{0}}}, db[TOGETHER] = {{{0}}}, du[TOGETHER] = {{{0}}};
  for (int k = 0; k < TOGETHER; k++)
    for (int p = 0; p < DEGREE; p++) r[k][p] = later[(j + k) * DEGREE + p];
  for (long t = at->tokens - 1; t >= 0; t--) {
    vec dx = at->dx[t];
    for (int k = 0; k < TOGETHER; k++) {
      number g[DEGREE], entered, *h = before[t][k];
      for (int p = 0; p < DEGREE; p++) {
        g[p] = plus_scaled(r[k][p], s[2][j + k], at->dy[t]);
        da[k] = plus_product(da[k], g[p], h[p]);
      }
      entered = g[0];
      for (int p = 1; p < DEGREE; p++) entered = plus_product(entered, g[p], h[p - 1]);
      db[k] = plus_scaled(db[k], entered, at->x[t]);
      if (ERASE) du[k] = plus_scaled(du[k], g[0], at->e[t]);
      else dx = plus_half(dx, s[1][j + k], entered);
      step_back(r[k], g, s[0][j + k], scaled(s[1][j + k], at->x[t]), ERASE ? scaled(s[4][j + k], -at->f[t]) : (number){{0}});
    }
    at->dx[t] = dx;
  }
  for (int k = 0; k < TOGETHER; k++) {
    for (int p = 0; p < DEGREE; p++) later[(j + k) * DEGREE + p] = r[k][p];
    d[0][j + k] = plus_scaled(d[0][j + k], da[k], all(1));
    d[1][j + k] = plus_scaled(d[1][j + k], db[k], all(1));
    if (ERASE) d[3][j + k] = plus_scaled(d[3][j + k], du[k], all(1));
  }
}

static void piece_back(group *own, const view *by, piece *at, const number *first) {
  number *later = own->state;
  if (ERASE) {
    memcpy(own->behind, later, own->n * sizeof(number));
    coupled(own, by, at->dy, at->dx, at->f, at->tokens, -1);
    later = own->behind;
  }
  for (long j = 0; j < own->n; j += TOGETHER) {
    number before[PIECE][TOGETHER][DEGREE];
    again(own, j, at, first, before);
    back(own, j, at, before, later);
  }
}

static void row_backward(group *own, const view *by, long row, const number *kept, const real *e, const real *dy, real *state,
                         real *dx) {
  const text *in = own->in;
  for (int p = 0; p < DEGREE; p++) gather(own->state + p, DEGREE, state + place_of(own, row, p), in->n, own->count);
  for (long j = 0; j < own->n * DEGREE; j++) own->state[j].r *= (real)0.5, own->state[j].i *= (real)-0.5;
  if (ERASE) together(own, by, NULL, NULL, NULL, 0, -1);
  for (long start = (in->time - 1) / PIECE * PIECE; start >= 0; start -= PIECE) {
    piece at = {.tokens = in->time - start < PIECE ? in->time - start : PIECE};
    long place = (row * in->time + start) * in->channels + own->first;
    rows_in(at.x, in->x + place, in->channels, at.tokens, own->count);
    rows_in(at.dy, dy + place, in->channels, at.tokens, own->count);
    if (ERASE) rows_in(at.e, e + place, in->channels, at.tokens, own->count);
    piece_back(own, by, &at, kept + start / PIECE * own->n * DEGREE);
    rows_out(dx + place, at.dx, in->channels, at.tokens, own->count, 2);
  }
  for (int p = 0; p < DEGREE; p++) scatter(state + place_of(own, row, p), own->state + p, DEGREE, in->n, own->count, 2, -2);
}

/* state: the gradient of the last state on entry, of the first on return. */
void backward(const text *in, const real *kept, const real *e, const real *dy, real *state, const gradients *d, int threads) {
  long pieces = (in->time + PIECE - 1) / PIECE, held = pieces * padded(in->n) * DEGREE;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long index = 0; index < (in->channels + LANES - 1) / LANES; index++) {
    group own = group_of(in, index);
    view by = ERASE ? view_of(&own, 2, 1, 4, 3) : (view){0};
    for (long row = 0; row < in->batch; row++)
      row_backward(&own, &by, row, (const number *)kept + (index * in->batch + row) * held, e, dy, state, d->x);
    for (int k = 0; k < SYSTEM; k++) {
      real way = k < 3 ? 2 : -2;
      scatter(d->system[k] + 2 * own.first * in->n, own.sums[k], 1, in->n, own.count, way, -way);
    }
    free(own.room);
  }
}
