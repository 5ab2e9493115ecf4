/* The diagonal recurrence of outer products, token by token, with its backward pass. Channels lie side by side in a vector.

     h_t[n] = (1 - e_t[n] f_t) h_{t-1}[n] + k_t[n] u_t,   y_t = sum_n q_t[n] h_t[n]          for each channel

   REAL float or double; N states a channel; LANES channels a vector, a divisor of the number of channels.

   Layouts: u, f, y [batch, time, channels]; k, e, q [batch, time, N]; states [batch, N, channels];
   kept [batch, pieces, N, channels], a state before every STEP tokens. */
#include "../native.h"

#define STEP 16

typedef struct {
  long batch, time, channels;
  const real *u, *f, *k, *e, *q;
} text;

/* One token of LANES channels: `to` becomes the state after it. */
static inline void step(const text *in, long row, long c, const vec from[N], vec to[N]) {
  vec u = load(in->u + row * in->channels + c), f = load(in->f + row * in->channels + c);
  const real *k = in->k + row * N, *e = in->e + row * N;
  for (int n = 0; n < N; n++) to[n] = (1 - f * e[n]) * from[n] + u * k[n];
}

static inline void load_all(vec to[N], const real *from, long stride) {
  for (int n = 0; n < N; n++) to[n] = load(from + n * stride);
}

static inline void store_all(real *to, const vec from[N], long stride) {
  for (int n = 0; n < N; n++) store(to + n * stride, from[n]);
}

/* state: the first one on entry, the last one on return. */
void forward(const text *in, real *state, real *y, real *kept, int threads) {
  long pieces = (in->time + STEP - 1) / STEP, wide = in->channels;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long b = 0; b < in->batch; b++)
    for (long c = 0; c < wide; c += LANES) {
      vec h[N];
      load_all(h, state + b * N * wide + c, wide);
      for (long t = 0; t < in->time; t++) {
        long row = b * in->time + t;
        if (kept && t % STEP == 0) store_all(kept + (b * pieces + t / STEP) * N * wide + c, h, wide);
        step(in, row, c, h, h);
        vec out = {0};
        for (int n = 0; n < N; n++) out += h[n] * in->q[row * N + n];
        store(y + row * wide + c, out);
      }
      store_all(state + b * N * wide + c, h, wide);
    }
}

typedef struct {
  real *u, *f, *k, *e, *q; /* k, e, q [groups, batch, time, N] */
} gradients;

/* One token of LANES channels backward: g is the gradient of the state after it on entry, of the state before it on return. */
static inline void step_back(const text *in, long row, long c, const vec h[N], const vec after[N], vec dy, vec g[N], vec dk[N],
                             vec de[N], vec dq[N], const gradients *d) {
  long place = row * in->channels + c;
  vec u = load(in->u + place), f = load(in->f + place), du = {0}, df = {0};
  for (int n = 0; n < N; n++) {
    real k = in->k[row * N + n], e = in->e[row * N + n];
    vec slope = g[n] + dy * in->q[row * N + n], closed = slope * h[n];
    dq[n] += dy * after[n];
    du += slope * k;
    dk[n] += slope * u;
    df -= closed * e;
    de[n] -= closed * f;
    g[n] = slope * (1 - f * e);
  }
  store(d->u + place, du);
  store(d->f + place, df);
}

/* Of one row of the batch and the channels from `first` to `last`: a group, whose gradients of k, e and q are its own. */
static void group_back(const text *in, long b, long group, long first, long last, const real *kept, const real *dy, real *state,
                       const gradients *d) {
  long pieces = (in->time + STEP - 1) / STEP, wide = in->channels, own = group * in->batch + b;
  for (long piece = pieces - 1; piece >= 0; piece--) {
    long start = piece * STEP, stop = start + STEP < in->time ? start + STEP : in->time;
    vec sums[3][STEP][N];
    memset(sums, 0, sizeof sums);
    for (long c = first; c < last; c += LANES) {
      vec h[STEP + 1][N], g[N];
      real *slope = state + b * N * wide + c;
      load_all(h[0], kept + (b * pieces + piece) * N * wide + c, wide);
      load_all(g, slope, wide);
      for (long t = start; t < stop; t++) step(in, b * in->time + t, c, h[t - start], h[t - start + 1]);
      for (long t = stop - 1; t >= start; t--) {
        long i = t - start, row = b * in->time + t;
        step_back(in, row, c, h[i], h[i + 1], load(dy + row * wide + c), g, sums[0][i], sums[1][i], sums[2][i], d);
      }
      store_all(slope, g, wide);
    }
    for (long t = start; t < stop; t++)
      for (int n = 0; n < N; n++) {
        long place = (own * in->time + t) * N + n;
        d->k[place] = sum(sums[0][t - start][n]);
        d->e[place] = sum(sums[1][t - start][n]);
        d->q[place] = sum(sums[2][t - start][n]);
      }
  }
}

/* state: the gradient of the last state on entry, of the first on return. */
void backward(const text *in, const real *kept, const real *dy, real *state, const gradients *d, long groups, int threads) {
  long vectors = in->channels / LANES;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long b = 0; b < in->batch; b++)
    for (long group = 0; group < groups; group++)
      group_back(in, b, group, vectors * group / groups * LANES, vectors * (group + 1) / groups * LANES, kept, dy, state, d);
}
