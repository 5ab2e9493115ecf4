/* Mamba's selective scan, token by token, with its backward pass. Channels lie side by side in a vector.

     h_t[n] = e^{Delta_t A[n]} h_{t-1}[n] + Delta_t x_t B_t[n],   y_t = sum_n C_t[n] h_t[n]          for each channel

   REAL float or double; N states a channel; LANES channels a vector, a divisor of the number of channels.

   Layouts: x, delta, y [batch, time, channels]; A [N, channels]; B, C [batch, time, N]; states [batch, N, channels];
   kept [batch, pieces, N, channels], a state before every STEP tokens. */
#include "../native.h"

#define STEP 16

typedef struct {
  long batch, time, channels;
  const real *x, *delta, *A, *B, *C;
} text;

/* One token of LANES channels: h becomes the state after it, decay what it was multiplied by. */
static inline void step(const text *in, long row, long c, const vec A[N], vec h[N], vec decay[N]) {
  vec delta = load(in->delta + row * in->channels + c), u = delta * load(in->x + row * in->channels + c);
  const real *B = in->B + row * N;
  for (int n = 0; n < N; n++) {
    decay[n] = exp_of_negative(delta * A[n]);
    h[n] = decay[n] * h[n] + u * B[n];
  }
}

static inline void load_all(vec to[N], const real *from, long stride) {
  for (int n = 0; n < N; n++) to[n] = load(from + n * stride);
}

static inline void store_all(real *to, const vec from[N], long stride) {
  for (int n = 0; n < N; n++) store(to + n * stride, from[n]);
}

/* before: the first state, which stays as it is; state: the last one. */
void forward(const text *in, const real *before, real *state, real *y, real *kept, int threads) {
  long pieces = (in->time + STEP - 1) / STEP;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long b = 0; b < in->batch; b++)
    for (long c = 0; c < in->channels; c += LANES) {
      vec A[N], h[N], decay[N];
      load_all(A, in->A + c, in->channels);
      load_all(h, before + b * N * in->channels + c, in->channels);
      for (long t = 0; t < in->time; t++) {
        long row = b * in->time + t;
        if (kept && t % STEP == 0) store_all(kept + (b * pieces + t / STEP) * N * in->channels + c, h, in->channels);
        step(in, row, c, A, h, decay);
        vec out = {0};
        for (int n = 0; n < N; n++) out += h[n] * in->C[row * N + n];
        store(y + row * in->channels + c, out);
      }
      store_all(state + b * N * in->channels + c, h, in->channels);
    }
}

typedef struct {
  real *x, *delta, *A, *B, *C; /* A [batch, N, channels]; B, C [groups, batch, time, N] */
} gradients;

/* One token of LANES channels backward: g is the gradient of the state after it on entry, of the state before it on return. */
static inline void step_back(const text *in, long row, long c, const vec A[N], const vec h[N], const vec after[N],
                             const vec decay[N], vec dy, vec g[N], vec dA[N], vec dB[N], vec dC[N], const gradients *d) {
  long place = row * in->channels + c;
  vec delta = load(in->delta + place), x = load(in->x + place), u = delta * x, du = {0}, ddelta = {0};
  const real *B = in->B + row * N, *C = in->C + row * N;
  for (int n = 0; n < N; n++) {
    dC[n] += dy * after[n];
    vec slope = g[n] + dy * C[n];
    du += slope * B[n];
    dB[n] += u * slope;
    g[n] = slope * decay[n];
    vec exponent = g[n] * h[n];
    dA[n] += exponent * delta;
    ddelta += exponent * A[n];
  }
  store(d->x + place, du * delta);
  store(d->delta + place, ddelta + du * x);
}

/* Of one row of the batch and the channels from `first` to `last`: a group, whose gradients of B and C are its own. */
static void group_back(const text *in, long b, long group, long first, long last, const real *kept, const real *dy, real *state,
                       const gradients *d) {
  long pieces = (in->time + STEP - 1) / STEP, wide = in->channels, own = group * in->batch + b;
  for (long piece = pieces - 1; piece >= 0; piece--) {
    long start = piece * STEP, stop = start + STEP < in->time ? start + STEP : in->time;
    vec dB[STEP][N], dC[STEP][N];
    memset(dB, 0, sizeof dB), memset(dC, 0, sizeof dC);
    for (long c = first; c < last; c += LANES) {
      vec A[N], h[STEP + 1][N], decay[STEP][N], g[N], dA[N];
      real *slope = state + b * N * wide + c, *sums = d->A + b * N * wide + c;
      load_all(A, in->A + c, wide);
      load_all(h[0], kept + (b * pieces + piece) * N * wide + c, wide);
      load_all(g, slope, wide);
      load_all(dA, sums, wide);
      for (long t = start; t < stop; t++) {
        memcpy(h[t - start + 1], h[t - start], sizeof g);
        step(in, b * in->time + t, c, A, h[t - start + 1], decay[t - start]);
      }
      for (long t = stop - 1; t >= start; t--) {
        long i = t - start, row = b * in->time + t;
        step_back(in, row, c, A, h[i], h[i + 1], decay[i], load(dy + row * wide + c), g, dA, dB[i], dC[i], d);
      }
      store_all(slope, g, wide);
      store_all(sums, dA, wide);
    }
    for (long t = start; t < stop; t++)
      for (int n = 0; n < N; n++) {
        d->B[(own * in->time + t) * N + n] = sum(dB[t - start][n]);
        d->C[(own * in->time + t) * N + n] = sum(dC[t - start][n]);
      }
  }
}

/* state: the gradient of the last state on entry, of the first on return; d->A is zero on entry, [batch, N, channels]. */
void backward(const text *in, const real *kept, const real *dy, real *state, const gradients *d, long groups, int threads) {
  long vectors = in->channels / LANES;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (long b = 0; b < in->batch; b++)
    for (long group = 0; group < groups; group++)
      group_back(in, b, group, vectors * group / groups * LANES, vectors * (group + 1) / groups * LANES, kept, dy, state, d);
}
