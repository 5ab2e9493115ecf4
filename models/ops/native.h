/* What the compiled operations share: numbers side by side in a vector register, their sum, and e to them.
   REAL is float or double; LANES, a power of two, is how many numbers lie side by side. */
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
