/* Data-dependent rotary positions and their backward pass (recurrence.py has the law):

     Theta_t = Theta_{t-1} + speed_t step_t,   q_t = R(Theta_t) (q'_t + bias_q),   k_t = R(Theta_t) (k'_t + bias_k)

   REAL float or double   LANES what a register holds   WIDTH numbers of a query   PAIRS of them that turn
   A turn keeps products, so that q_t . k_t is taken before it, and the gradient of an angle behind the turn back. With a and e the
   two numbers of a pair before it, and da and de their gradients, that of its angle is de a - da e.
   Layouts: q', k' [batch, time, WIDTH]; biases [heads, WIDTH]; speed [batch, time, PAIRS]; step, match [batch, time, heads];
   angles [batch, time, heads, PAIRS]; q, k [batch, time, heads, WIDTH]; first, last angles [batch, heads, PAIRS]. */
#include "../native.h"
#define UP(n) (((n) + LANES - 1) / LANES * LANES)

#define BLOCK 64 /* tokens whose gradients of the biases are summed by themselves, whatever the number of threads */
#define SIDE UP(PAIRS)
#define REST (WIDTH - 2 * PAIRS)
#define ROW (2 * SIDE + UP(REST) + LANES) /* a row in parts: first numbers, second numbers, the rest; each ends in zeros */

typedef struct {
  long batch, time, heads;
  const real *q, *k, *query_bias, *key_bias, *speed, *step;
} text;

static inline int left_of(int size, int at) { return size - at < LANES ? size - at : LANES; }

static inline vec load_first(const real *from, int count) {
  if (count == LANES) return load(from);
  vec x = {0};
  memcpy(&x, from, count * sizeof(real));
  return x;
}

static inline void part(const real *row, real *to) {
  for (int j = 0; j < PAIRS; j++) to[j] = row[2 * j], to[SIDE + j] = row[2 * j + 1];
  memcpy(to + 2 * SIDE, row + 2 * PAIRS, REST * sizeof(real));
}

static inline void join(const real *parts, real *row) {
  for (int j = 0; j < PAIRS; j++) row[2 * j] = parts[j], row[2 * j + 1] = parts[SIDE + j];
  memcpy(row + 2 * PAIRS, parts + 2 * SIDE, REST * sizeof(real));
}

/* Both biases of all heads in parts [heads, 2, ROW], and behind them `more` rows of zeros. */
static real *parted_biases(const text *x, long more) {
  real *rows = calloc((2 * x->heads + more) * ROW, sizeof(real));
  for (long h = 0; h < x->heads; h++)
    part(x->query_bias + h * WIDTH, rows + 2 * h * ROW), part(x->key_bias + h * WIDTH, rows + (2 * h + 1) * ROW);
  return rows;
}

/* Sine and cosine of an angle within half a turn and a little: that of the nearest quarter is left, and a Taylor series of it. */
static inline void turn_of(vec x, vec *sine, vec *cosine) {
  if (sizeof(real) == 8) { /* for tests: the library, number by number */
    for (int i = 0; i < LANES; i++) (*sine)[i] = sin(x[i]), (*cosine)[i] = cos(x[i]);
    return;
  }
  whole quarter = __builtin_convertvector(x * (real)0.63661977236758134 + choose(x < 0, all(-0.5), all(0.5)), whole);
  vec n = __builtin_convertvector(quarter, vec), r = (x - n * (real)1.5703125) - n * (real)4.83826794896558e-4, s = r * r;
  vec odd = r + r * s * ((real)(-1. / 6) + s * ((real)(1. / 120) + s * ((real)(-1. / 5040) + s * (real)(1. / 362880))));
  vec even = (real)(-1. / 720) + s * ((real)(1. / 40320) - s * (real)(1. / 3628800));
  even = 1 + s * ((real)-0.5 + s * ((real)(1. / 24) + s * even));
  whole swapped = (quarter & 1) == 1;
  vec high = choose(swapped, even, odd), wide = choose(swapped, odd, even);
  *sine = choose((quarter & 2) == 2, -high, high), *cosine = choose(((quarter + 1) & 2) == 2, -wide, wide);
}

/* The angles at all tokens of a text, summed in float64 and kept within half a turn. */
static void find_angles(const text *x, long n, const real *first, real *angles, double *now) {
  const double whole_turn = 6.283185307179586476925;
  for (long i = 0; i < x->heads * PAIRS; i++) now[i] = first[n * x->heads * PAIRS + i];
  for (long t = 0; t < x->time; t++)
    for (long h = 0; h < x->heads; h++) {
      const real *speed = x->speed + (n * x->time + t) * PAIRS, step = x->step[(n * x->time + t) * x->heads + h];
      real *to = angles + ((n * x->time + t) * x->heads + h) * PAIRS;
      for (int j = 0; j < PAIRS; j++) {
        double angle = now[h * PAIRS + j] + (double)(speed[j] * step);
        angle -= whole_turn * rint(angle * (1 / whole_turn));
        now[h * PAIRS + j] = angle, to[j] = (real)angle;
      }
    }
}

/* One head's query and key of a token, from their parts. Returns their product. */
static inline real turn(const real *q, const real *k, const real *bias, const real *angles, real *to_q, real *to_k) {
  vec match = {0};
  for (int j = 0; j < PAIRS; j += LANES) {
    int count = left_of(PAIRS, j);
    vec sine, cosine;
    turn_of(load_first(angles + j, count), &sine, &cosine);
    vec a = load(q + j) + load(bias + j), e = load(q + SIDE + j) + load(bias + SIDE + j);
    vec c = load(k + j) + load(bias + ROW + j), f = load(k + SIDE + j) + load(bias + ROW + SIDE + j);
    store_first(to_q + j, a * cosine - e * sine, count), store_first(to_q + PAIRS + j, e * cosine + a * sine, count);
    store_first(to_k + j, c * cosine - f * sine, count), store_first(to_k + PAIRS + j, f * cosine + c * sine, count);
    match += a * c + e * f;
  }
  for (int j = 0; j < REST; j += LANES) {
    int at = 2 * SIDE + j, count = left_of(REST, j);
    vec a = load(q + at) + load(bias + at), c = load(k + at) + load(bias + ROW + at);
    store_first(to_q + 2 * PAIRS + j, a, count), store_first(to_k + 2 * PAIRS + j, c, count);
    match += a * c;
  }
  return sum(match);
}

static void turn_block(const text *x, long n, long start, const real *biases, real *rows, const real *angles, real *q, real *k,
                       real *match) {
  for (long t = start; t < start + BLOCK && t < x->time; t++) {
    long token = n * x->time + t;
    part(x->q + token * WIDTH, rows), part(x->k + token * WIDTH, rows + ROW);
    for (long h = 0; h < x->heads; h++) {
      long row = token * x->heads + h;
      match[row] = turn(rows, rows + ROW, biases + 2 * h * ROW, angles + row * PAIRS, q + row * WIDTH, k + row * WIDTH);
    }
  }
}

void forward(const text *x, const real *first, real *angles, real *q, real *k, real *match, int threads) {
#pragma omp parallel num_threads(threads) if (x->time > 1)
  {
    double *now = malloc((x->heads * PAIRS + 1) * sizeof(double));
    real *biases = parted_biases(x, 2);
#pragma omp for schedule(static)
    for (long n = 0; n < x->batch; n++) find_angles(x, n, first, angles, now);
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long t = 0; t < x->time; t += BLOCK) turn_block(x, n, t, biases, biases + 2 * x->heads * ROW, angles, q, k, match);
    free(now), free(biases);
  }
}

/* dq, dk, dmatch as q, k, match; to: gradients as q', k', speed, step; biases [batch, blocks, heads, 2, WIDTH]; angles as angles. */
typedef struct {
  const real *dq, *dk, *dmatch;
  real *q, *k, *speed, *step, *biases, *angles;
} gradients;

/* A token's head back: its gradients in parts are added to those of the token, of q' and of k', and to those of the biases. */
static inline void turn_back(const real *q, const real *k, const real *bias, const real *angles, const real *dq, const real *dk,
                             real dmatch, real *sums, real *dbias, real *dangles) {
  for (int j = 0; j < PAIRS; j += LANES) {
    int count = left_of(PAIRS, j);
    vec sine, cosine;
    turn_of(load_first(angles + j, count), &sine, &cosine);
    vec a = load(q + j) + load(bias + j), e = load(q + SIDE + j) + load(bias + SIDE + j);
    vec c = load(k + j) + load(bias + ROW + j), f = load(k + SIDE + j) + load(bias + ROW + SIDE + j);
    vec one = load_first(dq + j, count), two = load_first(dq + PAIRS + j, count);
    vec da = one * cosine + two * sine, de = two * cosine - one * sine;
    one = load_first(dk + j, count), two = load_first(dk + PAIRS + j, count);
    vec dc = one * cosine + two * sine, df = two * cosine - one * sine;
    store_first(dangles + j, de * a - da * e + (df * c - dc * f), count);
    da += c * dmatch, de += f * dmatch, dc += a * dmatch, df += e * dmatch;
    store(sums + j, load(sums + j) + da), store(sums + SIDE + j, load(sums + SIDE + j) + de);
    store(sums + ROW + j, load(sums + ROW + j) + dc), store(sums + ROW + SIDE + j, load(sums + ROW + SIDE + j) + df);
    store(dbias + j, load(dbias + j) + da), store(dbias + SIDE + j, load(dbias + SIDE + j) + de);
    store(dbias + ROW + j, load(dbias + ROW + j) + dc), store(dbias + ROW + SIDE + j, load(dbias + ROW + SIDE + j) + df);
  }
  for (int j = 0; j < REST; j += LANES) {
    int at = 2 * SIDE + j, count = left_of(REST, j);
    vec da = load_first(dq + 2 * PAIRS + j, count) + (load(k + at) + load(bias + ROW + at)) * dmatch;
    vec dc = load_first(dk + 2 * PAIRS + j, count) + (load(q + at) + load(bias + at)) * dmatch;
    store(sums + at, load(sums + at) + da), store(sums + ROW + at, load(sums + ROW + at) + dc);
    store(dbias + at, load(dbias + at) + da), store(dbias + ROW + at, load(dbias + ROW + at) + dc);
  }
}

/* rows: q' and k' of a token in parts, and their gradients; dbiases [heads, 2, ROW]. */
static void block_back(const text *x, long n, long start, const real *biases, real *rows, real *dbiases, const real *angles,
                       const gradients *d) {
  memset(dbiases, 0, 2 * x->heads * ROW * sizeof(real));
  for (long t = start; t < start + BLOCK && t < x->time; t++) {
    long token = n * x->time + t;
    part(x->q + token * WIDTH, rows), part(x->k + token * WIDTH, rows + ROW);
    memset(rows + 2 * ROW, 0, 2 * ROW * sizeof(real));
    for (long h = 0; h < x->heads; h++) {
      long row = token * x->heads + h;
      turn_back(rows, rows + ROW, biases + 2 * h * ROW, angles + row * PAIRS, d->dq + row * WIDTH, d->dk + row * WIDTH,
                d->dmatch[row], rows + 2 * ROW, dbiases + 2 * h * ROW, d->angles + row * PAIRS);
    }
    join(rows + 2 * ROW, d->q + token * WIDTH), join(rows + 3 * ROW, d->k + token * WIDTH);
  }
  real *to = d->biases + (n * ((x->time + BLOCK - 1) / BLOCK) + start / BLOCK) * 2 * x->heads * WIDTH;
  for (long i = 0; i < 2 * x->heads; i++) join(dbiases + i * ROW, to + i * WIDTH);
}

/* From the gradients of the angles to those of speeds and steps: every token has turned all behind it. */
static void angles_back(const text *x, long n, real *first, const gradients *d, double *later) {
  for (long i = 0; i < x->heads * PAIRS; i++) later[i] = first[n * x->heads * PAIRS + i];
  for (long t = x->time - 1; t >= 0; t--) {
    long token = n * x->time + t;
    real *dspeed = d->speed + token * PAIRS;
    for (int j = 0; j < PAIRS; j++) dspeed[j] = 0;
    for (long h = 0; h < x->heads; h++) {
      const real *dangles = d->angles + (token * x->heads + h) * PAIRS, step = x->step[token * x->heads + h];
      real slope[PAIRS + 1], dstep = 0;
      for (int j = 0; j < PAIRS; j++) slope[j] = (real)(later[h * PAIRS + j] += dangles[j]);
      for (int j = 0; j < PAIRS; j++) dspeed[j] += slope[j] * step;
      for (int j = 0; j < PAIRS; j++) dstep += slope[j] * x->speed[token * PAIRS + j];
      d->step[token * x->heads + h] = dstep;
    }
  }
  for (long i = 0; i < x->heads * PAIRS; i++) first[n * x->heads * PAIRS + i] = (real)later[i];
}

/* first: the gradient of the last angles on entry, of the first on return. */
void backward(const text *x, const real *angles, real *first, const gradients *d, int threads) {
#pragma omp parallel num_threads(threads) if (x->time > 1)
  {
    double *later = malloc((x->heads * PAIRS + 1) * sizeof(double));
    real *biases = parted_biases(x, 4 + 2 * x->heads), *rows = biases + 2 * x->heads * ROW;
#pragma omp for collapse(2) schedule(static)
    for (long n = 0; n < x->batch; n++)
      for (long t = 0; t < x->time; t += BLOCK) block_back(x, n, t, biases, rows, rows + 4 * ROW, angles, d);
#pragma omp for schedule(static)
    for (long n = 0; n < x->batch; n++) angles_back(x, n, first, d, later);
    free(later), free(biases);
  }
}
