/* What a layer does with a few rows, without a gradient: RMS norm, linear maps, SwiGLU; rows of any width.

   REAL float or double; LANES what a register holds; HALF defined where maps read weights in bfloat16, REAL then being float.
   Layouts: x [rows, in]; weights [out, in], as nn.Linear keeps them; y [rows, out]. */
#include "../native.h"

#define LARGE 262144 /* weights from which threads are worth their start */

/* `joined` adds the products of STEP weights of one output with their inputs. */
#ifdef HALF
/* The upper half of a float, which is the same number with zeros behind it. Of STEP weights the second half lies in the upper
   halves of words whose lower ones are the first half; those at a row's end that fill no STEP lie one after another. */
typedef unsigned short weight;
typedef whole words __attribute__((aligned(sizeof(weight))));
#define STEP (2 * LANES)
#define FETCH 1

static inline vec joined(vec part, const weight *w, const real *x) {
  whole both = *(const words *)w;
  part += (vec)(both << 16) * load(x);
  return part + (vec)(both & (int)0xffff0000) * load(x + LANES);
}

static inline real number(weight w) {
  unsigned bits = (unsigned)w << 16;
  real found;
  memcpy(&found, &bits, sizeof found);
  return found;
}
#else
typedef real weight;
#define STEP LANES
#define FETCH 0
static inline vec joined(vec part, const weight *w, const real *x) { return part + load(w) * load(x); }
static inline real number(weight w) { return w; }
#endif

static inline real dot_end(const weight *w, const real *x, long from, long in) {
  real sum = 0;
  for (long i = from; i < in; i++) sum += number(w[i]) * x[i];
  return sum;
}

static inline real squares_end(const real *x, long from, long in) {
  real sum = 0;
  for (long i = from; i < in; i++) sum += x[i] * x[i];
  return sum;
}

/* y = W x + bias for outputs first .. last of one row */
static void map_row(const weight *w, const real *bias, const real *x, real *y, long first, long last, long in) {
  long whole = in / STEP * STEP, o = first;
  int far = FETCH && in * (last - first) >= LARGE;
  for (; o + LANES <= last; o += LANES) { /* LANES outputs at once: their sums are taken side by side */
    vec part[LANES] = {{0}};
    for (long i = 0; i < whole; i += STEP) {
#pragma GCC unroll 16
      for (int j = 0; j < LANES; j++) {
        if (far) __builtin_prefetch(w + (o + LANES + j) * in + i); /* rows are too short for the processor to see them coming */
        part[j] = joined(part[j], w + (o + j) * in + i, x + i);
      }
    }
    vec all = sums(part);
    for (int j = 0; whole < in && j < LANES; j++) all[j] += dot_end(w + (o + j) * in, x, whole, in);
    store(y + o, bias ? all + load(bias + o) : all);
  }
  for (; o < last; o++) {
    vec part = {0};
    for (long i = 0; i < whole; i += STEP) part = joined(part, w + o * in + i, x + i);
    y[o] = sum(part) + dot_end(w + o * in, x, whole, in) + (bias ? bias[o] : 0);
  }
}

/* Every output is one sum, made in one order, however many threads there are. */
static void map_rows(const weight *w, const real *bias, const real *x, real *y, long rows, long in, long out, int threads) {
  long pieces = in * out >= LARGE ? threads : 1;
#pragma omp parallel for schedule(static) num_threads(pieces) if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    long first = out * p / pieces / LANES * LANES, last = p + 1 < pieces ? out * (p + 1) / pieces / LANES * LANES : out;
    for (long r = 0; r < rows; r++) map_row(w, bias, x + r * in, y + r * out, first, last, in);
  }
}

void linear(const real *x, const weight *w, const real *bias, real *y, long rows, long in, long out, int threads) {
  map_rows(w, bias, x, y, rows, in, out, threads);
}

/* y = x / sqrt(mean x^2 + eps) * gain; gain may be NULL, and has `gains` numbers, as wide as a row or as several rows together. */
void rms_norm(const real *x, const real *gain, real *y, long rows, long width, long gains, double eps) {
  long whole = width / LANES * LANES;
  for (long r = 0; r < rows; r++, x += width, y += width) {
    vec part = {0};
    for (long i = 0; i < whole; i += LANES) part += load(x + i) * load(x + i);
    real scale = 1 / (sizeof(real) == 4 ? (real)sqrtf((sum(part) + squares_end(x, whole, width)) / width + (real)eps)
                                        : (real)sqrt((sum(part) + squares_end(x, whole, width)) / width + eps));
    const real *own = gain ? gain + r * width % gains : 0;
    long i = 0;
    for (; i < whole; i += LANES) store(y + i, own ? load(x + i) * scale * load(own + i) : load(x + i) * scale);
    for (; i < width; i++) y[i] = own ? x[i] * scale * own[i] : x[i] * scale;
  }
}

/* silu(gate) * up, into gate; n numbers each */
static void activate(real *gate, const real *up, long n) {
  long i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec z = load(gate + i);
    store(gate + i, z * sigmoid(z) * load(up + i));
  }
  if (i < n) {
    vec z = {0}, u = {0};
    memcpy(&z, gate + i, (n - i) * sizeof(real)), memcpy(&u, up + i, (n - i) * sizeof(real));
    z = z * sigmoid(z) * u;
    memcpy(gate + i, &z, (n - i) * sizeof(real));
  }
}

/* y = W_down (silu(W_gate x) * W_up x); gate_up [2 inner, width], down [width, inner], room for 2 inner numbers */
void swiglu(const real *x, const weight *gate_up, const weight *down, real *room, real *y, long rows, long width, long inner,
            int threads) {
  for (long r = 0; r < rows; r++) {
    map_rows(gate_up, 0, x + r * width, room, 1, width, 2 * inner, threads);
    activate(room, room + inner, inner);
    map_rows(down, 0, room, y + r * width, 1, inner, width, threads);
  }
}

/* Pairs (x_i, x_{i + half}) of rows x [batch, time, heads, 2 half] turned by place * frequency_i, the first token's place `start`.
   Angles in double: float32 loses whole radians beyond some ten million tokens. frequency NULL: 10000^(-i / half). */
void rotary(const real *x, real *y, const double *frequency, long batch, long time, long heads, long half, long start, long pace) {
  real cosine[half], sine[half];
  for (long t = 0; t < time; t++) {
    for (long i = 0; i < half; i++) {
      double angle = (double)(start + pace * t) * (frequency ? frequency[i] : pow(10000, -(double)i / half));
      cosine[i] = cos(angle), sine[i] = sin(angle);
    }
    for (long n = 0; n < batch; n++)
      for (long h = 0; h < heads; h++) {
        long place = ((n * time + t) * heads + h) * 2 * half;
        for (long i = place; i < place + half; i++) {
          y[i] = x[i] * cosine[i - place] - x[i + half] * sine[i - place];
          y[i + half] = x[i + half] * cosine[i - place] + x[i] * sine[i - place];
        }
      }
  }
}

/* y * silu(z), n numbers */
void gated(const real *y, const real *z, real *to, long n) {
  memcpy(to, z, n * sizeof(real));
  activate(to, y, n);
}
