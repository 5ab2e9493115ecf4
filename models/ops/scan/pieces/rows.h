/* States and rows of a piece of a text, as the forms in pieces read them: a state [K, V] and all rows are filled up with zeros to whole
   registers. Built for K, V, DECAY and CHUNK, a piece's tokens; include native.h and tiles.h before it. */
#define TALL UP(K)
#define BROAD UP(V)
#define STRIP 6 /* rows of a table below the diagonal that go together: a tile's */

typedef real state[TALL][BROAD];

static inline void *room(size_t size) {
  size = (size + 63) / 64 * 64;
  return memset(aligned_alloc(64, size), 0, size);
}

/* A row of `width` numbers, register by register: memcpy would take half of one at a time. */
static inline void copy_row(const real *from, real *to, const int width) {
  int i = 0;
  for (; i + LANES <= width; i += LANES) store(to + i, load(from + i));
  if (i < width) memcpy(to + i, from + i, (width - i) * sizeof(real));
}

static void load_state(const real *from, state S) {
  for (int i = 0; i < K; i++) memcpy(S[i], from + i * V, V * sizeof(real));
}

static void store_state(real *to, const state S) {
  for (int i = 0; i < K; i++) memcpy(to + i * V, S[i], V * sizeof(real));
}

static inline real dot(const real *x, const real *y, int columns) {
  vec found = {0};
  for (int c = 0; c < columns; c += LANES) found += load(x + c) * load(y + c);
  return sum(found);
}

static inline void scale_rows(real *rows, int wide, const real *by, long count) {
  if (DECAY)
    for (long t = 0; t < count; t++)
      for (int c = 0; c < wide; c += LANES) store(rows + t * wide + c, load(rows + t * wide + c) * by[t]);
}

/* What another piece needs soon: rows of the text lie far apart, where the processor itself does not look ahead. */
static inline void fetch(const real *row, long width) {
  for (long i = 0; i < width; i += 64 / sizeof(real)) __builtin_prefetch(row + i, 0, 2);
}

/* to += L x for a table L of `count` tokens whose numbers right of the diagonal are 0. */
static void times_lower(const real *L, const real *x, real *to, int wide, long count) {
  for (long r = 0; r < count; r += STRIP) {
    long rows = count - r < STRIP ? count - r : STRIP;
    product(L + r * CHUNK, CHUNK, 1, x, wide, r + rows, to + r * wide, 1, to + r * wide, wide, rows, wide);
  }
}

/* to += L^T x */
static void turned_times_lower(const real *L, const real *x, real *to, int wide, long count) {
  for (long r = 0; r < count; r += STRIP) {
    long rows = count - r < STRIP ? count - r : STRIP;
    product(L + r * CHUNK + r, 1, CHUNK, x + r * wide, wide, count - r, to + r * wide, 1, to + r * wide, wide, rows, wide);
  }
}
