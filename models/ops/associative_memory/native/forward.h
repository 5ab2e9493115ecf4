/* A chunk forward: its trace, the weights behind it, and what its queries read. */
/* What queries make of the layers: inputs h [UP(rows), WIDE], act' of hidden ones, outputs y, and how near they are to keys, h x^T. */
typedef struct {
  real *h[DEPTH], *slope[DEPTH], *y[DEPTH], *near[DEPTH];
} reading;

typedef struct {
  network net, first;
  reading read;
} trace;

static real *lay_trace(trace *t, real *place, long rows, long keys) {
  place = lay_network(&t->net, place, keys);
  if (SIMPLEX) place = lay_network(&t->first, place, 1);
  LAYERS(l) {
    t->read.h[l] = place, place += UP(rows) * WIDE(l);
    t->read.near[l] = place, place += ORTHOGONAL ? 0 : rows * UP(keys);
    t->read.slope[l] = place, place += l < DEPTH - 1 ? rows * H : 0;
  }
  LAYERS(l) t->read.y[l] = place, place += SCALED ? rows * OUT(l) : 0; /* else all lie in one place */
  return place + (SCALED ? 0 : rows * (H > V ? H : V));
}

/* What one thread has: a head's records, room for a layer or for all rows, and shares. */
typedef struct {
  real *kept, *room, *rows, *shares, *orthogonal;
  long kept_all;
} desk;

static long room_for(const text *x) {
  long rows = UP((x->chunk < x->time ? x->chunk : x->time) + x->window - 1), most = 0, layer;
  LAYERS(l) {
    layer = rows * WIDEST(l) > WIDE(l) * UP(OUT(l)) ? rows * WIDEST(l) : WIDE(l) * UP(OUT(l));
    most = layer > most ? layer : most;
    most = rows * rows > most ? rows * rows : most;
  }
  return most;
}

static real *record(const desk *d, long i) { return d->kept + (d->kept_all ? i : i & 1) * RECORD; }
static real *sum_before(const text *x, const desk *d, long i) {
  return INNER ? d->kept + (d->kept_all ? d->kept_all + 1 : 2) * RECORD : record(d, i) + SIZE;
}
static real *sum_after(const text *x, const desk *d, long i) { return INNER ? sum_before(x, d, i) + SIZE : record(d, i + 1) + SIZE; }
static real *scales(real *kept) { return kept + RECORD - UP(DEPTH); }

static void scale_anew(real *kept, const law *rule) {
  if (SCALED) LAYERS(l) scales(kept)[l] = scale_of(kept + AT(l), WIDE(l) * OUT(l), rule);
}

/* to [rows, wide] = from, each row times a share; rows up to a multiple of LANES become 0. */
static void shared(const real *from, const real *share, real *to, long rows, int wide) {
  memset(to + rows * wide, 0, (UP(rows) - rows) * wide * sizeof(real));
  for (long i = 0; i < rows; i++)
    for (int j = 0; j < wide; j += LANES) store(to + i * wide + j, load(from + i * wide + j) * share[i]);
}

/* to = scale from + (share x)^T e, a layer. */
static void write_layer(const network *net, int l, const real *share, long rows, const real *from, real scale, real *to, real *room) {
  shared(net->x[l], share, room, rows, WIDE(l));
  product(room, 1, WIDE(l), net->e[l], OUT(l), rows, from, scale, to, OUT(l), WIDE(l), OUT(l));
}

static inline void add_times(real *to, const real *from, real scale, long count) {
  for (long i = 0; i < count; i += LANES) store(to + i, load(to + i) + load(from + i) * scale);
}

/* The next record: W, or the open mini-batch's sum. */
static void write(const text *x, const piece *c, const shares *s, const network *net, const real *M, const real *S, real *next,
                  real *after, real *room, real *orthogonal) {
  long end = c->rows - 1;
  if (INNER && !c->whole) {
    memcpy(next, M, SIZE * sizeof(real));
    LAYERS(l) write_layer(net, l, s->P + end * c->padded, c->keys, c->old ? S + AT(l) : 0, 1, after + AT(l), room);
    return;
  }
  if (INNER) memset(after, 0, SIZE * sizeof(real));
  LAYERS(l) {
    if (SUMMED) write_layer(net, l, s->P + end * c->padded, c->keys, S + AT(l), s->ps[end], after + AT(l), room);
    if (ORTHOGONAL) {
      newton_schulz(after + AT(l), WIDE(l), OUT(l), next + AT(l), orthogonal);
      for (long i = AT(l); i < AT(l) + WIDE(l) * OUT(l); i += LANES)
        store(next + i, load(M + i) * s->g[end] + load(next + i) * s->amount[end]);
      continue;
    }
    write_layer(net, l, s->T + end * c->padded, c->keys, M + AT(l), s->g[end], next + AT(l), room);
    if (c->old) add_times(next + AT(l), S + AT(l), s->p[end], WIDE(l) * OUT(l));
  }
  scale_anew(next, &x->rule);
}

/* y of a layer, before it is scaled. */
static void read_layer(const piece *c, const shares *s, const network *net, const reading *r, int l, const real *M, const real *S,
                       const real *next, real *room, real *more) {
  real *y = r->y[l];
  long last = c->rows - 1;
  product(r->h[l], WIDE(l), 1, M + AT(l), OUT(l), ROWS(l), 0, 0, y, OUT(l), c->rows, OUT(l));
  for (long i = 0; i < c->rows; i++) scale_rows(y + i * OUT(l), OUT(l), s->g[i]);
  if (ORTHOGONAL) {
    if (c->whole)
      product(r->h[l] + last * WIDE(l), WIDE(l), 1, next + AT(l), OUT(l), ROWS(l), 0, 0, y + last * OUT(l), OUT(l), 1, OUT(l));
    return;
  }
  if (c->old) {
    shared(r->h[l], s->p, room, c->rows, WIDE(l));
    product(room, WIDE(l), 1, S + AT(l), OUT(l), ROWS(l), y, 1, y, OUT(l), c->rows, OUT(l));
  }
  transpose(net->x[l], WIDE(l), room, c->padded, c->padded, WIDE(l));
  product(r->h[l], WIDE(l), 1, room, c->padded, ROWS(l), 0, 0, r->near[l], c->padded, c->rows, c->padded);
  for (long i = 0; i < c->rows * c->padded; i += LANES) store(more + i, load(r->near[l] + i) * load(s->T + i));
  product(more, c->padded, 1, net->e[l], OUT(l), c->keys, y, 1, y, OUT(l), c->rows, OUT(l));
}

static void read(const text *x, const piece *c, const shares *s, const trace *t, const real *M, const real *S, const real *now,
                 const real *next, desk *d, real *y, long apart) {
  LAYERS(l) {
    read_layer(c, s, &t->net, &t->read, l, M, S, next, d->room, d->rows);
    for (long i = 0; SCALED && i < c->rows; i++)
      scale_rows(t->read.y[l] + i * OUT(l), OUT(l), c->whole && i == c->rows - 1 ? scales((real *)next)[l] : scales((real *)now)[l]);
    if (l < DEPTH - 1) activate(t->read.y[l], t->read.h[l + 1], t->read.slope[l], 0, c->rows);
  }
  for (long i = 0; i < c->rows; i++) memcpy(y + i * apart, t->read.y[DEPTH - 1] + i * V, V * sizeof(real));
}

static void chunk_forward(const text *x, long b, long h, long i, desk *d, real *place, real *y) {
  piece c = piece_of(x, i);
  real *W = record(d, i), *next = record(d, i + 1), *S = sum_before(x, d, i), *M = SIMPLEX ? W + SIZE : W, *s = scales(W);
  long key = key_at(x, b, c.start, h), gate = gate_at(x, b, c.start, h);
  const real *gain = x->gain ? x->gain + h * V : 0, *aim = x->aim + key * V;
  const real *threshold = x->threshold ? x->threshold + key : 0;
  trace t;
  shares own;
  lay_trace(&t, place, c.rows, c.keys);
  lay_shares(&own, d->shares, c.rows, c.padded);
  fill(x, b, h, &c, &own);
  if (SIMPLEX) {
    enter_rows(x->k + key * K, 0, t.first.x[0], 1, K, WIDE(0));
    compare(W, s, aim, 0, threshold, 0, gain, &x->rule, 1, &t.first, d->room);
    memset(M, 0, SIZE * sizeof(real));
    LAYERS(l)
    step_in_logarithms(W + AT(l), t.first.x[l], t.first.e[l], x->keep[gate], x->rate[gate], &x->rule, ROWS(l), OUT(l), M + AT(l));
  }
  enter_rows(x->k + key * K, x->heads * K, t.net.x[0], c.keys, K, WIDE(0));
  compare(M, s, aim, x->heads * V, threshold, x->heads, gain, &x->rule, c.keys, &t.net, d->room);
  if (c.whole || INNER) write(x, &c, &own, &t.net, M, S, next, sum_after(x, d, i), d->room, d->orthogonal);
  enter_rows(x->q + gate * K, x->heads * K, t.read.h[0], c.rows, K, WIDE(0));
  read(x, &c, &own, &t, M, S, W, next, d, y + gate * V, x->heads * V);
}
