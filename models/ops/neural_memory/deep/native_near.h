/* A memory of one matrix whose anchors lie inside a piece (NEAR): what a key is compared with is then made of the piece's own writes,

     e_t = v_t - c_n W^T k_t - m_n S^T k_t - sum_{i<n} T_ni (k_t . a_i) e_i        c_n, m_n, T_n: the shares before token n, t's anchor

   a triangle of equations, solved one token after the other; and the way back. Include native_pieces.h before it. */
static long anchor_of(const text *x, long t) { return t / x->chunk * x->chunk; }

/* own->scores: k_t . a_i; own->near: with its share, zeros from t's anchor on. */
static void find_triangle(const text *x, desk *own) {
  find_scores(own, own->a[0], 0);
  memset(own->near, 0, sizeof own->near);
  for (long t = 0; t < own->count; t++)
    for (long i = 0, n = anchor_of(x, t); i < n; i++)
      own->near[t * PIECE + i] = own->scores[t * PIECE + i] * own->left->T[(n - 1) * PIECE + i];
}

#define SIDE (V / LANES % 4 == 0 ? 4 : V / LANES % 2 == 0 ? 2 : 1) /* vectors whose sums go side by side: one waits for itself */
#define EACH(s) _Pragma("GCC unroll 4") for (int s = 0; s < SIDE; s++)

/* row -= sum_i share_i of row i of `rows`, whose shares lie `step` apart. */
static inline void less(const real *share, long step, const real *rows, long count, real *row) {
  for (long j = 0; j < V; j += SIDE * LANES) {
    vec left[SIDE];
    EACH(s) left[s] = load(row + j + s * LANES);
    for (long i = 0; i < count; i++) EACH(s) left[s] -= load(rows + i * V + j + s * LANES) * share[i * step];
    EACH(s) store(row + j + s * LANES, left[s]);
  }
}

static void compare_near(const text *x, desk *own, real *trace) {
  real *e = own->e[0]; /* holds v */
  find_triangle(x, own);
  product(own->a[0], K, 1, own->state, V, K, 0, 1, own->one, V, own->count, V);
  product(own->a[0], K, 1, own->state + SIZE, V, K, 0, 1, own->other, V, own->count, V);
  for (long t = 0; t < own->count; t++) {
    long n = anchor_of(x, t);
    real c = before(own->left->c, n, 1), m = before(own->left->m, n, 0);
    for (long j = t * V; j < (t + 1) * V; j += LANES)
      store(e + j, load(e + j) - load(own->one + j) * c - load(own->other + j) * m);
    less(own->near + t * PIECE, 1, e, n, e + t * V);
  }
  scatter(e, V, trace, TRACE, own->count);
}

/* What comparisons take of W (part 0) or S (1), token by token. */
static void find_shares(const text *x, const desk *own, int part, real *by) {
  for (long t = 0; t < own->count; t++) by[t] = -(part ? before(own->left->m, anchor_of(x, t), 0) : before(own->left->c, anchor_of(x, t), 1));
}

/* de[0] holds what reads and writes gave to errors, and then the gradient of v; da[0] gets the keys' share. */
static void near_back(const text *x, desk *own, slopes *given) {
  const long count = own->count;
  real *de = own->de[0], *da = own->da[0], by[PIECE];
  find_triangle(x, own);
  for (long t = count - 1; t >= 0; t--) { /* of those that are compared with what t wrote: from the next chunk on */
    long next = anchor_of(x, t) + x->chunk;
    if (next < count) less(own->near + next * PIECE + t, PIECE, de + next * V, count - next, de + t * V);
  }
  memset(de + count * V, 0, (PIECE - count) * V * sizeof(real));
  transpose(own->e[0], V, own->turned, PIECE, UP(count), V);
  product(de, V, 1, own->turned, PIECE, V, 0, 1, own->near, PIECE, count, UP(count));
  for (long t = 0; t < count; t++)
    for (long i = 0, n = anchor_of(x, t); i < PIECE; i++) {
      real slope = i < n ? -own->near[t * PIECE + i] : 0;
      if (i < n) given->near_T[n * PIECE + i] += slope * own->scores[t * PIECE + i];
      own->near[t * PIECE + i] = i < n ? slope * own->left->T[(n - 1) * PIECE + i] : 0;
    }
  product(own->near, PIECE, 1, own->a[0], K, count, da, 1, da, K, count, K);
  product(own->near, 1, PIECE, own->a[0], K, count, da, 1, da, K, count, K);
  for (int part = 0; part < 2; part++) {
    through(own, own->state + part * SIZE, de, own->one, K, V);
    for (long t = 0; t < count; t++)
      (part ? given->near_m : given->near_c)[anchor_of(x, t)] -= dot(own->one + t * K, own->a[0] + t * K, K);
    find_shares(x, own, part, by);
    scale(da, own->one, by, K, count, 1);
  }
}

/* What comparisons give the state before the piece; after `state_back`. */
static void near_state_back(const text *x, desk *own) {
  real by[PIECE];
  for (int part = 0; part < 2; part++) {
    real *G = own->G + part * SIZE;
    find_shares(x, own, part, by);
    scale(own->one, own->de[0], by, V, own->count, 0);
    product(own->a[0], 1, K, own->one, V, own->count, G, 1, G, V, K, V);
  }
}
