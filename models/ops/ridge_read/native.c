/* The systems of a ridge regression, one a token, each solved by Cholesky's factors. REAL float or double; LANES chunks of a text
   lie side by side in a vector, each with its own matrix; K keys.

     H <- a H + b k k^T      (H + diag(l)) x = r      H + diag(l) = L L^T

   Layouts: k, right, x [tiles, tokens, K]; forget a, rate b [tiles, tokens]; states [tiles, K, K], of which the lower half is
   read: H before each tile; ridge [heads, K], tile i has row i % heads. */
#include "../native.h"
#define INLINE static inline __attribute__((always_inline))

typedef struct {
  long tiles, tokens, heads;
  const real *k, *forget, *rate, *ridge, *states;
} systems;

/* to[i]: number i of the rows of LANES tiles, each `apart` from the next; those behind the last tile read the last. */
INLINE void enter(const real *from, long apart, const long *tile, long count, vec *to) {
  for (long i = 0; i < count; i++)
    for (int lane = 0; lane < LANES; lane++) to[i][lane] = from[tile[lane] * apart + i];
}

/* H <- a H + b k k^T, of which the lower half is kept. */
INLINE void write(vec (*H)[K], vec a, vec b, const vec *k) {
  for (int i = 0; i < K; i++) {
    vec written = b * k[i];
    for (int j = 0; j <= i; j++) H[i][j] = a * H[i][j] + written * k[j];
  }
}

/* Rows of L from `first` on, `high` of them together: up to their first column no sum waits for another. */
INLINE void rows_of_factor(const vec (*H)[K], const vec *ridge, vec (*L)[K], vec *inverse, int first, const int high) {
  for (int j = 0; j < first + high; j++) {
    int from = j < first ? 0 : j - first; /* the rows above the diagonal's have no column j */
    vec left[4] = {{0}};
#pragma GCC unroll 4
    for (int r = 0; r < high; r++) left[r] = H[first + r][r < from ? 0 : j];
    for (int n = 0; n < j; n++) {
      vec one = L[j][n];
#pragma GCC unroll 4
      for (int r = 0; r < high; r++) left[r] -= L[first + r][n] * one;
    }
    if (j >= first) { /* what rounding leaves of a pivot is no less than a rounding of what it came from */
      vec origin = H[j][j] + ridge[j], pivot = left[from] + ridge[j], least = origin * (sizeof(real) == 4 ? (real)1e-7 : (real)1e-16);
      inverse[j] = 1 / root(choose(pivot < least, least, pivot));
    }
#pragma GCC unroll 4
    for (int r = 0; r < high; r++)
      if (r >= from) L[first + r][j] = left[r] * inverse[j];
  }
}

INLINE void factor(const vec (*H)[K], const vec *ridge, vec (*L)[K], vec *inverse) {
  int i = 0;
  for (; i + 4 <= K; i += 4) rows_of_factor(H, ridge, L, inverse, i, 4);
  for (; i < K; i++) rows_of_factor(H, ridge, L, inverse, i, 1);
}

/* x <- (L L^T)^-1 x */
INLINE void solve_one(const vec (*L)[K], const vec *inverse, vec *x) {
  for (int i = 0; i < K; i++) {
    vec left[2] = {x[i], {0}};
    for (int j = 0; j < i; j++) left[j & 1] -= L[i][j] * x[j];
    x[i] = (left[0] + left[1]) * inverse[i];
  }
  for (int i = K - 1; i >= 0; i--) {
    x[i] *= inverse[i];
    for (int j = 0; j < i; j++) x[j] -= L[i][j] * x[i];
  }
}

void solve(const systems *in, const real *right, real *x, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long first = 0; first < in->tiles; first += LANES) {
    vec *space = malloc((2 * K * K + 4 * K) * sizeof(vec) + sizeof(vec));
    vec(*H)[K] = (vec(*)[K])space, (*L)[K] = H + K, *ridge = (vec *)(L + K), *inverse = ridge + K, *k = inverse + K, *r = k + K;
    long tile[LANES], head[LANES], count = in->tiles - first < LANES ? in->tiles - first : LANES;
    for (int lane = 0; lane < LANES; lane++) tile[lane] = first + (lane < count ? lane : count - 1), head[lane] = tile[lane] % in->heads;
    enter(in->states, K * K, tile, K * K, (vec *)H), enter(in->ridge, K, head, K, ridge);
    for (long t = 0; t < in->tokens; t++) {
      vec a, b;
      enter(in->forget + t, in->tokens, tile, 1, &a), enter(in->rate + t, in->tokens, tile, 1, &b);
      enter(in->k + t * K, in->tokens * K, tile, K, k), enter(right + t * K, in->tokens * K, tile, K, r);
      write(H, a, b, k), factor((const vec(*)[K])H, ridge, L, inverse), solve_one((const vec(*)[K])L, inverse, r);
      for (int lane = 0; lane < count; lane++)
        for (int i = 0; i < K; i++) x[(tile[lane] * in->tokens + t) * K + i] = r[i][lane];
    }
    free(space);
  }
}
