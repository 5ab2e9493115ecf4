/* A piece of a text whose heads only write: its rows, what stays from token to token, and what each gives to the others. The words are
   those of `hebbian.c`; include native.h, tiles.h and rows.h before it. */
typedef struct {
  long batch, time, heads, groups; /* heads go in so many groups, whose gradients of shared keys are apart */
  const real *q, *w, *v, *a, *b;
} text;

typedef struct {
  real *q, *w, *v, *a, *b;
} gradients;

/* `count` tokens from `start` on; rows behind them are zeros as far as a register goes. */
typedef struct {
  long start, count, next, more, head; /* `more` tokens from `next` on of one `head` are those that are read after these */
  real Q[CHUNK][TALL], W[CHUNK][TALL], QT[TALL][CHUNK], WT[TALL][CHUNK], products[CHUNK][CHUNK]; /* of keys: all heads' if SHARED */
  real E[CHUNK][BROAD], U[CHUNK][BROAD], Z[CHUNK][BROAD];                                       /* values, what is written, room */
  real b[CHUNK], reach[CHUNK], left[CHUNK][CHUNK], scores[CHUNK][CHUNK]; /* r_t, r_ts, and r_ts (q_t . w_s) */
} piece;

/* Gradients; QT and WT turned, FT and UT those of y and what was written, turned; T is room. */
typedef struct {
  real QT[TALL][CHUNK], WT[TALL][CHUNK], T[TALL][CHUNK], F[CHUNK][BROAD], FT[BROAD][CHUNK], UT[BROAD][CHUNK];
  real scores[CHUNK][CHUNK], products[CHUNK][CHUNK], turned[CHUNK][CHUNK], rows[CHUNK][TALL], reads[CHUNK], writes[CHUNK];
} piece_back;

static inline long row_of(const text *x, long n, long t, long h) { return (n * x->time + t) * x->heads + h; }
static inline long pieces_of(const text *x) { return (x->time + CHUNK - 1) / CHUNK; }
static inline long first_of(const text *x, long g) { return x->heads * g / x->groups; }

static inline void begin(const text *x, long n, long p, piece *own) {
  own->start = p * CHUNK, own->count = x->time - own->start < CHUNK ? x->time - own->start : CHUNK;
}

/* What is read after this head of piece p: the head behind it, or head `first` of the piece `way` further. */
static inline void look_ahead(const text *x, long p, long way, long h, long first, long end, piece *own) {
  const long next = h + 1 < end ? p : p + way;
  own->head = h + 1 < end ? h + 1 : first, own->next = next * CHUNK;
  own->more = next < 0 || own->next >= x->time ? 0 : x->time - own->next < CHUNK ? x->time - own->next : CHUNK;
}

/* Rows that the next head reads, into the cache while this one's products run: they lie far apart, where the processor itself does not
   look. Those of keys only where they are not this head's own. */
static void fetch_values(const text *x, long n, const piece *own, const real *rows) {
  for (long t = own->next; t < own->next + own->more; t++) fetch(rows + row_of(x, n, t, own->head) * V, V);
}

static void fetch_keys(const text *x, long n, const piece *own, const real *rows) {
  if (SHARED && own->next == own->start) return;
  for (long t = own->next; t < own->next + own->more; t++) fetch(rows + (SHARED ? n * x->time + t : row_of(x, n, t, own->head)) * K, K);
}

/* to [count, count] = x y for y turned [depth, CHUNK]: as far right as the diagonal, whole registers. */
static void lower_product(const real *x, long pitch, const real *y, long depth, real *to, long count) {
  for (long r = 0; r < count; r += STRIP) {
    long rows = count - r < STRIP ? count - r : STRIP;
    product(x + r * pitch, pitch, 1, y, CHUNK, depth, 0, 1, to + r * CHUNK, CHUNK, rows, UP(r + rows));
  }
}

/* Rows of a piece that are written at its end; whoever asks for a line only then waits for it. */
static void fetch_to_write(const real *rows, long pitch, long width, long count) {
  for (long t = 0; t < count; t++)
    for (long i = 0; i < width; i += 64 / sizeof(real)) __builtin_prefetch(rows + t * pitch + i, 1, 2);
}

/* Queries and keys, as they are and turned, and their products; queries are turned for the way back alone. */
static void gather_keys(const text *x, long n, long h, piece *own, int back) {
  const long count = own->count, wide = UP(count);
  for (long t = 0; t < count; t++) {
    long key = (SHARED ? n * x->time + own->start + t : row_of(x, n, own->start + t, h)) * K;
    copy_row(x->q + key, own->Q[t], K), copy_row(x->w + key, own->W[t], K);
  }
  for (long t = count; t < wide; t++) memset(own->Q[t], 0, sizeof own->Q[t]), memset(own->W[t], 0, sizeof own->W[t]);
  if (back) transpose(own->Q[0], TALL, own->QT[0], CHUNK, wide, TALL);
  transpose(own->W[0], TALL, own->WT[0], CHUNK, wide, TALL);
  lower_product(own->Q[0], TALL, own->WT[0], K, own->products[0], count);
}

/* What stays at each token: `left` of what every token wrote, `reach` of the state before the piece; 0 behind the last one. */
static void find_left(const text *x, long n, long h, piece *own) {
  const long count = own->count;
  vec left[CHUNK / LANES] = {{0}}; /* in registers: what was stored number by number is slow to load as vectors */
  real reach = 1;
  for (long t = 0; t < count; t++) {
    real a = DECAY ? x->a[row_of(x, n, own->start + t, h)] : 1;
    for (int c = 0; c < CHUNK / LANES; c++) {
      left[c] = choose(LANE + c * LANES == (WHOLE)t, all(1), DECAY ? left[c] * a : left[c]);
      store(own->left[t] + c * LANES, left[c]);
    }
    own->reach[t] = reach *= a;
  }
  for (long t = count; t < CHUNK; t++) own->reach[t] = 0;
}

/* A head's gates, what it writes, and what its tokens give one another. */
static void gather_head(const text *x, long n, long h, piece *own) {
  const long count = own->count;
  find_left(x, n, h, own);
  for (long t = 0; t < count; t++) {
    long row = row_of(x, n, own->start + t, h);
    if (x->b) {
      copy_row(x->v + row * V, own->E[t], V), own->b[t] = x->b[row];
      for (int c = 0; c < BROAD; c += LANES) store(own->U[t] + c, load(own->E[t] + c) * own->b[t]);
    } else copy_row(x->v + row * V, own->U[t], V);
    for (long s = 0; s < CHUNK; s += LANES)
      store(own->scores[t] + s, s <= t ? load(own->products[t] + s) * load(own->left[t] + s) : (vec){0});
  }
  for (long t = count; t < UP(count); t++) memset(own->U[t], 0, sizeof own->U[t]);
}

/* A piece's rows, times `by` if that is not NULL, to where the text has them. */
static inline void scatter(const text *x, long n, long h, const piece *own, real *from, const real *by, real *to) {
  for (long t = 0; t < own->count; t++) {
    if (by)
      for (int c = 0; c < BROAD; c += LANES) store(from + t * BROAD + c, load(from + t * BROAD + c) * by[t]);
    copy_row(from + t * BROAD, to + row_of(x, n, own->start + t, h) * V, V);
  }
}
