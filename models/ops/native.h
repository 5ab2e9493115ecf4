/* What the compiled operations share: numbers side by side in a vector register, their sum, and e to them.
   REAL is float or double; LANES, a power of two, is how many numbers lie side by side. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef REAL real;
typedef real vec __attribute__((vector_size(sizeof(real) * LANES), aligned(sizeof(real))));
#define WHOLE __typeof__(__builtin_choose_expr(sizeof(real) == 4, 0, 0L))
typedef WHOLE whole __attribute__((vector_size(sizeof(real) * LANES), aligned(sizeof(real))));

static inline vec load(const real *from) { return *(const vec *)from; }
static inline void store(real *to, vec x) { *(vec *)to = x; }
static inline vec all(real x) { return x - (vec){0}; }

#if LANES == 16
#define LANE ((whole){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
#elif LANES == 8
#define LANE ((whole){0, 1, 2, 3, 4, 5, 6, 7})
#elif LANES == 4
#define LANE ((whole){0, 1, 2, 3})
#elif LANES == 2
#define LANE ((whole){0, 1})
#else
#define LANE ((whole){0})
#endif

/* The sum of a vector's numbers, in pairs, so that the order does not hang on the compiler. */
static inline real sum(vec x) {
#pragma GCC unroll 4
  for (int half = LANES / 2; half; half /= 2) x += __builtin_shuffle(x, LANE ^ half);
  return x[0];
}

/* The sums of LANES vectors side by side: fewer steps than one after another, for each halves two vectors into one. */
static inline vec sums(vec rows[LANES]) {
#pragma GCC unroll 4
  for (int half = LANES / 2; half; half /= 2) {
    whole block = LANE / half, first = (block / 2) * (2 * half) + LANE % half + (block & 1) * LANES;
#pragma GCC unroll 8
    for (int i = 0; i < half; i++)
      rows[i] = __builtin_shuffle(rows[i], rows[i + half], first) + __builtin_shuffle(rows[i], rows[i + half], first + half);
  }
  return rows[0];
}

/* From `yes` where `which` is -1, from `no` where it is 0: C has no ?: for vectors. */
static inline vec choose(whole which, vec yes, vec no) {
  whole one, other;
  memcpy(&one, &yes, sizeof one), memcpy(&other, &no, sizeof other);
  whole found = (which & one) | (~which & other);
  memcpy(&yes, &found, sizeof yes);
  return yes;
}

/* e^x for x <= 0, to the last digit or two; 0 where it has none left, NaN for NaN. x = n log 2 + r, and a Taylor series of r. */
static inline vec exp_of_negative(vec x) {
  const real least = sizeof(real) == 4 ? -87 : -708;
  whole gone = x < least; /* -1 or 0 */
  vec bounded = choose(gone, all(least), x);
  whole n = __builtin_convertvector(bounded * (real)1.4426950408889634 - (real)0.5, whole);
  vec turns = __builtin_convertvector(n, vec);
  const real high = sizeof(real) == 4 ? 0.693359375 : 6.93147180369123816490e-01;
  const real low = sizeof(real) == 4 ? -2.12194440e-4 : 1.90821492927058770002e-10;
  vec r = (bounded - turns * high) - turns * low;
  const int terms = sizeof(real) == 4 ? 7 : 13;
  vec series = all(1);
  for (int i = terms; i; i--) series = series * r * (real)(1.0 / i) + 1;
  const int digits = sizeof(real) == 4 ? 23 : 52;
  whole power = (n + (WHOLE)(sizeof(real) == 4 ? 127 : 1023)) << digits;
  vec scale;
  memcpy(&scale, &power, sizeof(vec));
  return choose(gone, (vec){0}, series * scale);
}

/* As exact, by half the instructions. What is not as new keeps the form above, so that trainings measured with it come again.
   Added to 1.5 x 2^digits a number keeps its whole part alone, which then stands in the lowest digits: no conversion there and back.
   What is below `least` is computed to nonsense and thrown away. */
static inline vec quick_exp_of_negative(vec x) {
  const real least = sizeof(real) == 4 ? -87 : -708;
  const real whole_part = sizeof(real) == 4 ? 12582912 : 6755399441055744;
  const real high = sizeof(real) == 4 ? 0.693359375 : 6.93147180369123816490e-01;
  const real low = sizeof(real) == 4 ? -2.12194440e-4 : 1.90821492927058770002e-10;
  const real inverse[] = {1., 1., 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880, 1. / 3628800,
                          1. / 39916800, 1. / 479001600, 1. / 6227020800}; /* of factorials */
  const int terms = sizeof(real) == 4 ? 7 : 13, digits = sizeof(real) == 4 ? 23 : 52;
  vec shifted = x * (real)1.4426950408889634 + whole_part, n = shifted - whole_part;
  vec r = (x - n * high) - n * low, series = all(inverse[terms]), scale;
#pragma GCC unroll 13
  for (int i = terms - 1; i >= 0; i--) series = series * r + inverse[i];
  whole power;
  memcpy(&power, &shifted, sizeof power);
  power = (power + (WHOLE)(sizeof(real) == 4 ? 127 : 1023)) << digits;
  memcpy(&scale, &power, sizeof scale);
  return choose(x < least, (vec){0}, series * scale);
}

static inline vec root(vec x) {
  for (int i = 0; i < LANES; i++) x[i] = sizeof(real) == 4 ? sqrtf(x[i]) : sqrt(x[i]);
  return x;
}

static inline void store_first(real *to, vec x, int count) { memcpy(to, &x, count * sizeof(real)); }

/* The share of a normal distribution below x, given e^(-x^2/2). In float32 the tail is that times a polynomial of
   2 / (1 + |x|/4) - 1, fitted to 4e-8 of its value; float64 is for tests and asks the library number by number. */
static inline vec normal_below(vec x, vec bell) {
  vec tail;
  if (sizeof(real) == 8) {
    for (int i = 0; i < LANES; i++) tail[i] = erfc(-x[i] * 0.70710678118654752) / 2;
    return tail;
  }
  const real fitted[] = {3.933014240e-05, 3.233142034e-05, -3.909467247e-04, -8.690419737e-04, 1.878057845e-03,
                         1.509882397e-02, 4.663167772e-02, 9.678439073e-02,  1.519741010e-01,  1.888212818e-01};
  vec t = 1 / (1 + choose(x < 0, -x, x) * (real)0.25), u = t + t - 1;
  tail = all(fitted[0]);
  for (int i = 1; i < 10; i++) tail = tail * u + fitted[i];
  tail = tail * t * bell;
  return choose(x < 0, tail, 1 - tail);
}

/* 1 / (1 + e^-x) */
static inline vec sigmoid(vec x) {
  vec low = exp_of_negative(choose(x < 0, x, -x)), share = 1 / (1 + low);
  return choose(x < 0, low * share, share);
}

/* The same by the quicker exponential. */
static inline vec quick_sigmoid(vec x) {
  vec low = quick_exp_of_negative(choose(x < 0, x, -x)), share = 1 / (1 + low);
  return choose(x < 0, low * share, share);
}

/* tanh: near 0 its series, elsewhere from e^-2|x|, which would lose digits there. */
static inline vec tanh_of(vec x) {
  if (sizeof(real) == 8) {
    for (int i = 0; i < LANES; i++) x[i] = tanh(x[i]);
    return x;
  }
  vec size = choose(x < 0, -x, x), low = exp_of_negative(size * -2), far = (1 - low) / (1 + low), s = x * x;
  vec near = x + x * s * (s * (s * (s * (real)(62. / 2835) - (real)(17. / 315)) + (real)(2. / 15)) - (real)(1. / 3));
  return choose(size < (real)0.25, near, choose(x < 0, -far, far));
}

/* log(1 + u) for 0 <= u <= 1: twice the series of artanh(u / (2 + u)). */
static inline vec log_of_one_and(vec u) {
  vec s = u / (2 + u), square = s * s, sum = {0};
  for (int odd = sizeof(real) == 4 ? 17 : 35; odd > 0; odd -= 2) sum = sum * square + (real)(2.0 / odd);
  return sum * s;
}
