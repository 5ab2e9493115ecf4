/* How much of what a chunk began with, W and S, and of every token's write x^T e stands in the memory that token i reads:

     M_i = g_i W + p_i S + sum_j T_ij x_j^T e_j          S_i = ps_i S + sum_j P_ij x_j^T e_j

   P_i = momentum_i P_(i-1) + weight of the window that ends at i      T_i = keep_i T_(i-1) + rate_i P_i      likewise ps, p; g of keep
   Without momentum and window P_i is token i alone. With INNER, which is test-time training, T_ij = factor_i rate_j, S is what an
   open mini-batch has gathered, and the last row of P what it gathers now. */
typedef struct {
  long batch, time, heads, chunk, window, place; /* place: of the first token in its chunk */
  const real *q, *k, *aim, *rate, *keep, *weight, *momentum, *threshold, *gain, *factor;
  law rule;
} text;

typedef struct {
  long index, start, rows, keys, padded; /* keys: with those of the window before; padded: up to LANES */
  int whole, old;                        /* whole: the chunk ends here; old: S counts */
} piece;

static long pieces(const text *x) { return (x->place + x->time + x->chunk - 1) / x->chunk; }

static piece piece_of(const text *x, long i) {
  long start = i ? i * x->chunk - x->place : 0, end = (i + 1) * x->chunk - x->place, stop = end < x->time ? end : x->time;
  long keys = stop - start + x->window - 1;
  return (piece){i, start, stop - start, keys, UP(keys), end <= x->time, INNER ? !i && x->place : MOMENTUM};
}

typedef struct {
  real *T, *P, *g, *p, *ps, *amount;
} shares;

static real *lay_shares(shares *s, real *place, long rows, long padded) {
  s->T = place, s->P = s->T + rows * padded, s->g = s->P + rows * padded;
  s->p = s->g + rows, s->ps = s->p + rows, s->amount = s->ps + rows;
  return s->amount + rows;
}

static inline long gate_at(const text *x, long b, long t, long h) { return (b * x->time + t) * x->heads + h; }
static inline long key_at(const text *x, long b, long t, long h) { return (b * (x->time + x->window - 1) + t) * x->heads + h; }

static void fill_inner(const text *x, long b, long h, const piece *c, shares *s) {
  long place = c->index ? 0 : x->place;
  real *last = s->P + (c->rows - 1) * c->padded;
  for (long i = 0; i < c->rows; i++) {
    real factor = x->factor[place + i];
    s->g[i] = 1, s->p[i] = -factor;
    for (long j = 0; j <= i; j++) s->T[i * c->padded + j] = factor * x->rate[gate_at(x, b, c->start + j, h)];
  }
  for (long j = 0; j < c->rows; j++) last[j] = -x->rate[gate_at(x, b, c->start + j, h)];
  s->ps[c->rows - 1] = 1;
}

/* With SIMPLEX the first token has stepped before the shares begin. */
static inline real keep_of(const text *x, long at, long i) { return SIMPLEX && !i ? 1 : x->keep[at]; }
static inline real rate_of(const text *x, long at, long i) { return SIMPLEX && !i ? 0 : x->rate[at]; }

static void fill(const text *x, long b, long h, const piece *c, shares *s) {
  memset(s->T, 0, 2 * c->rows * c->padded * sizeof(real));
  if (INNER) {
    fill_inner(x, b, h, c, s);
    return;
  }
  for (long i = 0; i < c->rows; i++) {
    long at = gate_at(x, b, c->start + i, h);
    real *T = s->T + i * c->padded, *P = s->P + i * c->padded;
    real keep = keep_of(x, at, i), rate = rate_of(x, at, i), eta = MOMENTUM ? x->momentum[at] : 0;
    for (long j = i; j < i + x->window; j++) P[j] = x->weight ? x->weight[key_at(x, b, c->start + j, h)] : 1;
    if (MOMENTUM && i)
      for (long j = 0; j < c->padded; j++) P[j] += eta * P[j - c->padded];
    for (long j = 0; j < c->padded; j++) T[j] = rate * P[j] + (i ? keep * T[j - c->padded] : 0);
    s->g[i] = keep * (i ? s->g[i - 1] : 1);
    s->ps[i] = eta * (i ? s->ps[i - 1] : 1);
    s->p[i] = rate * s->ps[i] + (i ? keep * s->p[i - 1] : 0);
    s->amount[i] = rate + (i ? keep * s->amount[i - 1] : 0);
  }
}

typedef struct {
  real *q, *k, *aim, *rate, *keep, *weight, *momentum, *threshold, *gain, *factor;
} gradients;

static void fill_inner_back(const text *x, long b, long h, const piece *c, const shares *ds, const gradients *d) {
  long place = c->index ? 0 : x->place;
  real *factor = d->factor + (b * x->heads + h) * x->chunk;
  const real *last = ds->P + (c->rows - 1) * c->padded;
  for (long i = 0; i < c->rows; i++) {
    factor[place + i] -= ds->p[i];
    d->rate[gate_at(x, b, c->start + i, h)] -= last[i];
    for (long j = 0; j <= i; j++) {
      long at = gate_at(x, b, c->start + j, h);
      factor[place + i] += ds->T[i * c->padded + j] * x->rate[at];
      d->rate[at] += ds->T[i * c->padded + j] * x->factor[place + i];
    }
  }
}

/* Back over `fill`: ds holds the gradients of the shares s, and is lost. */
static void fill_back(const text *x, long b, long h, const piece *c, const shares *s, shares *ds, const gradients *d) {
  if (INNER) {
    fill_inner_back(x, b, h, c, ds, d);
    return;
  }
  for (long i = c->rows - 1; i >= 0; i--) {
    long at = gate_at(x, b, c->start + i, h), row = i * c->padded;
    real keep = keep_of(x, at, i), rate = rate_of(x, at, i), eta = MOMENTUM ? x->momentum[at] : 0;
    real dkeep = ds->g[i] * (i ? s->g[i - 1] : 1), drate = ds->p[i] * s->ps[i] + ds->amount[i], deta = 0;
    ds->ps[i] += rate * ds->p[i];
    for (long j = row; j < row + c->padded; j++) drate += ds->T[j] * s->P[j], ds->P[j] += rate * ds->T[j];
    if (i) {
      dkeep += ds->p[i] * s->p[i - 1] + ds->amount[i] * s->amount[i - 1];
      ds->g[i - 1] += keep * ds->g[i], ds->p[i - 1] += keep * ds->p[i], ds->amount[i - 1] += keep * ds->amount[i];
      for (long j = row; j < row + c->padded; j++)
        dkeep += ds->T[j] * s->T[j - c->padded], ds->T[j - c->padded] += keep * ds->T[j];
    }
    if (MOMENTUM) {
      deta = ds->ps[i] * (i ? s->ps[i - 1] : 1);
      if (i) {
        ds->ps[i - 1] += eta * ds->ps[i];
        for (long j = row; j < row + c->padded; j++)
          deta += ds->P[j] * s->P[j - c->padded], ds->P[j - c->padded] += eta * ds->P[j];
      }
      d->momentum[at] = deta;
    }
    if (x->weight)
      for (long j = i; j < i + x->window; j++) d->weight[key_at(x, b, c->start + j, h)] += ds->P[row + j];
    if (SIMPLEX && !i) continue; /* that token's gates have stepped in the logarithms */
    d->keep[at] = dkeep, d->rate[at] = drate;
  }
}
