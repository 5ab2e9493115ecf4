/* Complex numbers of LANES channels side by side, and how they are read and written where the channels lie apart: the system of a
   group of channels, and its state. For native.c, whose macros and layouts these are. */
#include "../native.h"

#define PIECE 32
#define TOGETHER (DEGREE > 1 ? 1 : 2) /* numbers that go through a piece at once, whose sums do not wait for one another */
#define STEPS 4                       /* tokens whose erasing is found at once */
#define SYSTEM (ERASE ? 5 : 3)        /* a, b, c, u, v */

typedef struct {
  long batch, time, channels, n;
  const real *x, *system[5];
} text;

typedef struct {
  vec r, i;
} number;

static inline number scaled(number a, vec x) { return (number){a.r * x, a.i * x}; }

static inline number product(number a, number b) { return (number){a.r * b.r - a.i * b.i, a.r * b.i + a.i * b.r}; }

/* A sum's part that is ready early: a compiler that joins a product and a sum is to take the other product, which waits. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
static inline number early(number a) { return (number){__builtin_assoc_barrier(a.r), __builtin_assoc_barrier(a.i)}; }
#else
static inline number early(number a) { return a; }
#endif

/* a + b c, the product's parts one after the other: in a loop over tokens c waits for two sums alone. */
static inline number plus_product(number a, number b, number c) {
  a = early(a);
  return (number){a.r + b.r * c.r - b.i * c.i, a.i + b.r * c.i + b.i * c.r};
}

static inline number plus_scaled(number a, number b, vec x) { return (number){a.r + b.r * x, a.i + b.i * x}; }
static inline number less_scaled(number a, number b, vec x) { return (number){a.r - b.r * x, a.i - b.i * x}; }

/* A sum and half of what is read of h: the real part of the product. */
static inline vec plus_half(vec sum, number p, number h) { return sum + p.r * h.r - p.i * h.i; }

/* Of `count` channels, [channels, n, 2] becomes n numbers `step` apart; channels that are not there are zeros. */
static void gather(number *to, long step, const real *from, long n, int count) {
  for (long j = 0; j < n; j++) {
    real both[2][LANES] = {{0}};
    for (int k = 0; k < count; k++) both[0][k] = from[2 * (k * n + j)], both[1][k] = from[2 * (k * n + j) + 1];
    to[j * step] = (number){load(both[0]), load(both[1])};
  }
}

/* The way back, times two numbers: gradients are the conjugates of what is summed. */
static void scatter(real *to, const number *from, long step, long n, int count, real r, real i) {
  for (long j = 0; j < n; j++)
    for (int k = 0; k < count; k++) {
      real *own = to + 2 * (k * n + j);
      own[0] = from[j * step].r[k] * r, own[1] = from[j * step].i[k] * i;
    }
}

/* Rows of `count` numbers, `wide` apart, as vectors, and back, times a number. */
static inline void rows_in(vec *to, const real *from, long wide, long tokens, int count) {
  for (long t = 0; t < tokens; t++) {
    if (count == LANES) to[t] = load(from + t * wide);
    else {
      real row[LANES] = {0};
      memcpy(row, from + t * wide, count * sizeof(real));
      to[t] = load(row);
    }
  }
}

static inline void rows_out(real *to, const vec *from, long wide, long tokens, int count, real times) {
  for (long t = 0; t < tokens; t++) {
    if (count == LANES) store(to + t * wide, from[t] * times);
    else store_first(to + t * wide, from[t] * times, count);
  }
}

/* A group of channels: its numbers, n of them rounded up by zeros, and where they begin. */
typedef struct {
  const text *in;
  long first, n;
  int count;
  number *system[5], *sums[5], *state, *looks, *behind, *room;
  vec shown[STEPS]; /* what the state shows of itself to the next tokens */
} group;

static inline long padded(long n) { return (n + TOGETHER - 1) / TOGETHER * TOGETHER; }

static group group_of(const text *in, long index) {
  long first = index * LANES, n = padded(in->n), left = in->channels - first;
  group own = {in, first, n, left < LANES ? left : LANES};
  own.room = calloc((2 * SYSTEM + DEGREE + ERASE * (STEPS + 1)) * n, sizeof(number));
  for (int k = 0; k < SYSTEM; k++) {
    own.system[k] = own.room + k * n, own.sums[k] = own.room + (SYSTEM + k) * n;
    gather(own.system[k], 1, in->system[k] + 2 * first * in->n, in->n, own.count);
  }
  own.state = own.room + 2 * SYSTEM * n, own.looks = own.state + DEGREE * n, own.behind = own.looks + STEPS * n;
  return own;
}

/* Where the state of a row and a degree lies. */
static inline long place_of(const group *own, long row, int p) {
  return 2 * ((row * DEGREE + p) * own->in->channels + own->first) * own->in->n;
}
