/* A memory of one matrix, whose columns never meet but in the sums of its rows: it goes a band of columns after the other, so that
   the band's states lie in the first cache where the whole matrix' would not. The words are those of `native.c`, which includes it;
   every sum keeps the order that it has there. */
#define BAND (SIDE(V, 2) * LANES) /* columns that go together; they divide V */
#define SEVERAL (LANES > 1 && V > BAND)
typedef real band[2][K * BAND]; /* W and S */

/* Columns from `c` on of `count` matrices [K, V] that follow one another. */
static inline void cut(const real *from, int c, real *to, int count) {
  for (int i = 0; i < count * K; i++)
    for (int j = 0; j < BAND; j += LANES) store(to + i * BAND + j, load(from + i * V + c + j));
}

static inline void paste(const real *from, real *to, int c, int count) {
  for (int i = 0; i < count * K; i++)
    for (int j = 0; j < BAND; j += LANES) store(to + i * V + c + j, load(from + i * BAND + j));
}

/* Columns from `c` on, through the whole text. */
static void read_band(const text *x, long n, long h, int c, band state, real *A, real *y, real *traces, real *kept, real *end) {
  real here[V];
  cuts all_cuts = cuts_of(x->chunk);
  for (long t = 0, piece = 0; t < x->time; t++) {
    long place = (n * x->time + t) * x->heads + h;
    token one = at(x, place);
    real *error = (traces ? traces + place * TRACE : here) + c;
    if (kept && t == start_of(all_cuts, piece)) paste(state[0], kept + piece++ * 2 * SIZE, c, 2);
    if (t == x->last) paste(state[0], end, c, 2);
    if (x->chunk > 1 && t % x->chunk == 0) memcpy(A, state[0], sizeof state[0]);
    columns(x->chunk > 1 ? A : state[0], one.k, error, kappa(&one, 0), K, BAND);
    for (int j = 0; j < BAND; j += LANES) store(error + j, load(one.v + c + j) - load(error + j));
    write_and_read(state[0], state[1], one.k, error, *one.momentum, *one.rate, *one.keep, one.q, y + place * V + c, K, BAND);
  }
  if (x->last == x->time) paste(state[0], end, c, 2);
}

/* begun: the first state on entry, that before token `last` on return. */
static void read_head(const text *x, long n, long h, real *y, real *traces, real *kept, real *begun) {
  band state;
  real A[K * BAND];
  for (int c = 0; c < V; c += BAND) {
    cut(begun, c, state[0], 2);
    read_band(x, n, h, c, state, A, y, traces, kept, begun);
  }
}

/* What one token's bands add up to. */
typedef struct {
  vec q[K], k[K], r[K]; /* along rows: what is read gives to q, what is written to k, and A dz */
  vec rates[V / LANES]; /* not added up at once: the sum over bands rounds as that over all columns of `write_back` */
  gating gates;
} row_sums;

/* What one thread has of a head: a band's states in a piece, its anchor if that stands before it, and gradients of all bands. */
typedef struct {
  band state[STEP + 1], G[V / BAND];
  real A[K * BAND], GA[V / BAND][K * BAND];
  row_sums tokens[STEP];
} work;

static void band_back(const text *x, long n, long h, long start, long stop, int c, work *own, const real *A,
                       const real *traces, const real *dy, const real *dend, const gradients *d) {
  real *G = own->G[c / BAND][0], *GA = x->chunk > 1 ? own->GA[c / BAND] : G;
  for (long t = start; t < stop; t++) {
    long place = (n * x->time + t) * x->heads + h, i = t - start;
    token one = at(x, place);
    write_again(own->state[i][0], own->state[i + 1][0], K * BAND, one.k, traces + place * TRACE + c, *one.momentum, *one.rate,
                *one.keep, dy + place * V + c, own->tokens[i].q, K, BAND);
  }
  for (long t = stop - 1; t >= start; t--) {
    long place = (n * x->time + t) * x->heads + h, i = t - start;
    token one = at(x, place);
    real *dv = d->v + place * V + c, down[BAND];
    if (t + 1 == x->last)
      for (int j = 0; j < 2 * K; j++)
        for (int s = 0; s < BAND; s += LANES) store(G + j * BAND + s, load(G + j * BAND + s) + load(dend + j * V + c + s));
    write_back(G, own->state[i][0], K * BAND, one.k, traces + place * TRACE + c, *one.momentum, *one.rate, *one.keep, one.q,
               dy + place * V + c, own->tokens[i].k, dv, &own->tokens[i].gates,
               SEVERAL ? own->tokens[i].rates + c / LANES : 0, K, BAND);
    for (int j = 0; j < BAND; j += LANES) store(down + j, -load(dv + j));
    anchor_back(GA, A ? A : own->state[i / x->chunk * x->chunk][0], one.k, kappa(&one, 0), down, 0, 0, own->tokens[i].r, K, BAND);
    if (x->chunk > 1 && t % x->chunk == 0) {
      for (int j = 0; j < K * BAND; j += LANES) store(G + j, load(G + j) + load(GA + j));
      memset(GA, 0, K * BAND * sizeof(real));
    }
  }
}

/* A token's rows, of which all bands have given their part, summed. */
static void sums_back(const token *x, const row_sums *own, long place, const gradients *d) {
  real r[K], *dk = d->k + place * K, *keep = d->keep + place, decay = kappa(x, 0);
  d->momentum[place] = d->rate[place] = *keep = 0;
  sum_rows(own->q, d->q + place * K, K);
  key_back(own->k, *x->rate, dk, K);
  gating gates = own->gates;
  for (int j = 0; SEVERAL && j < V / LANES; j++) gates.thetas += own->rates[j];
  gates_back(&gates, d->momentum + place, d->rate + place, keep);
  sum_rows(own->r, r, K);
  for (int i = 0; i < K; i++) dk[i] += decay * r[i];
  if (DECAYED)
    for (int i = 0; i < K; i++) *keep += x->k[i] * r[i];
}

static void bands_back(const text *x, long n, long h, work *own, const real *traces, const real *kept, const real *dy,
                        const real *dend, const gradients *d) {
  cuts all_cuts = cuts_of(x->chunk);
  long stop = x->time;
  for (long piece = pieces(x->time, x->chunk) - 1; piece >= 0; piece--) {
    long start = start_of(all_cuts, piece), anchor = piece / all_cuts.each * all_cuts.each;
    memset(own->tokens, 0, sizeof own->tokens);
    for (int c = 0; c < V; c += BAND) {
      cut(kept + piece * 2 * SIZE, c, own->state[0][0], 2);
      if (all_cuts.each > 1) cut(kept + anchor * 2 * SIZE, c, own->A, 1);
      band_back(x, n, h, start, stop, c, own, all_cuts.each > 1 ? own->A : 0, traces, dy, dend, d);
    }
    for (long t = start; t < stop; t++) {
      long place = (n * x->time + t) * x->heads + h;
      token one = at(x, place);
      sums_back(&one, own->tokens + (t - start), place, d);
    }
    stop = start;
  }
}

/* change: the gradient of the state that was handed out on entry, of the first one on return. */
static void head_back(const text *x, long n, long h, work *own, const real *traces, const real *kept, const real *dy,
                        real *change, const gradients *d) {
  memset(own->G, 0, sizeof own->G), memset(own->GA, 0, sizeof own->GA);
  bands_back(x, n, h, own, traces, kept, dy, change, d);
  for (int j = 0; j < 2 * K; j++)
    for (int c = 0; c < V; c++)
      change[j * V + c] = own->G[c / BAND][0][j * BAND + c % BAND] + (x->last ? 0 : change[j * V + c]);
}
