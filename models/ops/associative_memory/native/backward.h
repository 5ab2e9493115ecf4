/* A chunk backward, in the order of what depends on what: reads, writes, errors, keys, shares. */

/* What one thread has for it: gradients G, GS of the next chunk's W and S, B, BS of this one's, its weights transposed, and the
   scales' gradients now and next. */
typedef struct {
  real *G, *GS, *B, *BS, *WT, *dy, *dh, *room, *more, *shares, *slopes, *orthogonal, scale[DEPTH], scale_next[DEPTH];
} workbench;

/* Back over a layer's read; dy [rows, OUT] is lost, dh [rows, WIDE] made. */
static void read_layer_back(const piece *c, const shares *s, shares *ds, const trace *t, slopes *k, int l, const real *M, const real *S,
                            const real *next, workbench *w, const real *now) {
  real *h = t->read.h[l], *dy = w->dy, *dh = w->dh, *B = w->B + AT(l), *WT = w->WT + AT(l);
  long rows = c->rows, last = rows - 1;
  for (long i = 0; SCALED && i < rows; i++) {
    int behind = c->whole && i == last;
    real scale = behind ? scales((real *)next)[l] : scales((real *)now)[l];
    *(behind ? w->scale_next + l : w->scale + l) += dot(dy + i * OUT(l), t->read.y[l] + i * OUT(l), OUT(l)) / scale;
    scale_rows(dy + i * OUT(l), OUT(l), scale);
  }
  transpose(M + AT(l), OUT(l), WT, WIDE(l), WIDE(l), OUT(l));
  if (ORTHOGONAL && c->whole) { /* the last token reads what stands behind the chunk */
    rows = last;
    for (int r = 0; r < WIDE(l); r++) dh[last * WIDE(l) + r] = dot(next + AT(l) + r * OUT(l), dy + last * OUT(l), OUT(l));
    real *G = w->G + AT(l);
    product(h + last * WIDE(l), 1, WIDE(l), dy + last * OUT(l), OUT(l), 1, G, 1, G, OUT(l), ROWS(l), OUT(l));
  }
  product(dy, OUT(l), 1, WT, WIDE(l), OUT(l), 0, 0, dh, WIDE(l), rows, WIDE(l));
  for (long i = 0; i < rows; i++) {
    ds->g[i] += dot(dh + i * WIDE(l), h + i * WIDE(l), WIDE(l));
    scale_rows(dh + i * WIDE(l), WIDE(l), s->g[i]);
  }
  shared(h, s->g, w->room, rows, WIDE(l));
  product(w->room, 1, WIDE(l), dy, OUT(l), rows, B, 1, B, OUT(l), ROWS(l), OUT(l));
  if (ORTHOGONAL) return;
  if (c->old) {
    transpose(S + AT(l), OUT(l), w->room, WIDE(l), WIDE(l), OUT(l));
    product(dy, OUT(l), 1, w->room, WIDE(l), OUT(l), 0, 0, w->more, WIDE(l), rows, WIDE(l));
    for (long i = 0; i < rows; i++) {
      ds->p[i] += dot(w->more + i * WIDE(l), h + i * WIDE(l), WIDE(l));
      add_times(dh + i * WIDE(l), w->more + i * WIDE(l), s->p[i], WIDE(l));
    }
    shared(h, s->p, w->room, rows, WIDE(l));
    product(w->room, 1, WIDE(l), dy, OUT(l), rows, w->BS + AT(l), 1, w->BS + AT(l), OUT(l), ROWS(l), OUT(l));
  }
  const network *net = &t->net;
  real *dnear = w->more;
  transpose(net->e[l], OUT(l), w->room, c->padded, c->padded, OUT(l));
  product(dy, OUT(l), 1, w->room, c->padded, OUT(l), 0, 0, dnear, c->padded, rows, c->padded);
  for (long i = 0; i < rows * c->padded; i += LANES) {
    vec slope = load(dnear + i), near = load(t->read.near[l] + i), share = load(s->T + i);
    store(ds->T + i, load(ds->T + i) + slope * near);
    store(dnear + i, slope * share), store(w->room + i, near * share);
  }
  product(w->room, 1, c->padded, dy, OUT(l), rows, k->de[l], 1, k->de[l], OUT(l), c->keys, OUT(l));
  product(dnear, 1, c->padded, h, WIDE(l), rows, k->dx[l], 1, k->dx[l], WIDE(l), c->keys, WIDE(l));
  product(dnear, c->padded, 1, net->x[l], WIDE(l), c->keys, dh, 1, dh, WIDE(l), rows, WIDE(l));
}

/* Back over (share x)^T e of a layer, whose gradient is G: d holds the gradients of x and e, dshare those of the shares. */
static void write_layer_back(const network *net, int l, const real *share, real *dshare, long keys, const real *G, slopes *k, workbench *w) {
  real *turned = w->room, *found = w->more;
  product(net->x[l], WIDE(l), 1, G, OUT(l), ROWS(l), 0, 0, found, OUT(l), keys, OUT(l));
  for (long j = 0; j < keys; j++) {
    dshare[j] += dot(found + j * OUT(l), net->e[l] + j * OUT(l), OUT(l));
    add_times(k->de[l] + j * OUT(l), found + j * OUT(l), share[j], OUT(l));
  }
  transpose(G, OUT(l), turned, WIDE(l), WIDE(l), OUT(l));
  product(net->e[l], OUT(l), 1, turned, WIDE(l), OUT(l), 0, 0, found, WIDE(l), keys, WIDE(l));
  for (long j = 0; j < keys; j++) add_times(k->dx[l] + j * WIDE(l), found + j * WIDE(l), share[j], WIDE(l));
}

/* to += scale from, and returns how alike from and other are. */
static inline real add_and_compare(real *to, const real *from, real scale, const real *other, long count) {
  vec part = {0};
  for (long i = 0; i < count; i += LANES) {
    vec x = load(from + i);
    part += x * load(other + i), store(to + i, load(to + i) + x * scale);
  }
  return sum(part);
}

static void write_back(const piece *c, const shares *s, shares *ds, const network *net, const real *M, const real *S, const real *after,
                       slopes *k, workbench *w) {
  long end = c->rows - 1, last = end * c->padded;
  if (INNER && !c->whole) {
    add_times(w->B, w->G, 1, SIZE);
    LAYERS(l) write_layer_back(net, l, s->P + last, ds->P + last, c->keys, w->GS + AT(l), k, w);
    if (c->old) add_times(w->BS, w->GS, 1, SIZE);
    return;
  }
  LAYERS(l) {
    long at = AT(l), count = WIDE(l) * OUT(l);
    if (ORTHOGONAL) {
      ds->amount[end] += newton_schulz_back(after + at, WIDE(l), OUT(l), w->G + at, s->amount[end], w->GS + at, w->orthogonal);
    } else
      write_layer_back(net, l, s->T + last, ds->T + last, c->keys, w->G + at, k, w);
    ds->g[end] += add_and_compare(w->B + at, w->G + at, s->g[end], M + at, count);
    if (c->old && !ORTHOGONAL) ds->p[end] += add_and_compare(w->BS + at, w->G + at, s->p[end], S + at, count);
    if (!SUMMED) continue;
    write_layer_back(net, l, s->P + last, ds->P + last, c->keys, w->GS + at, k, w);
    ds->ps[end] += add_and_compare(w->BS + at, w->GS + at, s->ps[end], S + at, count);
  }
}

/* Back over a first step in logarithms: B becomes the gradient of W, from that of M. */
static void first_back(const text *x, const gradients *d, const real *W, const real *M, const network *first, long gate, long key,
                       const real *gain, real *dgain, workbench *w) {
  slopes k;
  real *end = lay_slopes(&k, w->slopes, 1), dkeep = 0, drate = 0;
  memset(w->slopes, 0, (end - w->slopes) * sizeof(real));
  LAYERS(l) {
    step_in_logarithms_back(W + AT(l), M + AT(l), first->x[l], first->e[l], x->keep[gate], x->rate[gate], &x->rule, ROWS(l), OUT(l),
                            w->B + AT(l), k.dx[l], k.de[l], &dkeep, &drate);
    transpose(W + AT(l), OUT(l), w->WT + AT(l), WIDE(l), WIDE(l), OUT(l));
  }
  d->keep[gate] = dkeep, d->rate[gate] = drate;
  compare_back(W, w->WT, 0, x->aim + key * V, 0, x->threshold ? x->threshold + key : 0, 0, gain, &x->rule, 1, first, &k, w->B,
               d->aim + key * V, x->threshold ? d->threshold + key : 0, dgain, 0);
  for (int j = 0; j < K; j++) d->k[key * K + j] += k.dx[0][j];
}

static void chunk_backward(const text *x, long b, long h, long i, const desk *own, real *place, const real *dy, const gradients *d,
                           workbench *w) {
  piece c = piece_of(x, i);
  real *W = record(own, i), *next = record(own, i + 1), *S = sum_before(x, own, i), *M = SIMPLEX ? W + SIZE : W;
  long key = key_at(x, b, c.start, h), gate = gate_at(x, b, c.start, h);
  const real *gain = x->gain ? x->gain + h * V : 0, *threshold = x->threshold ? x->threshold + key : 0;
  real *dgain = gain ? d->gain + (b * x->heads + h) * V : 0;
  trace t;
  shares s, ds;
  slopes k;
  lay_trace(&t, place, c.rows, c.keys);
  real *middle = lay_shares(&s, w->shares, c.rows, c.padded), *end = lay_shares(&ds, middle, c.rows, c.padded);
  memset(middle, 0, (end - middle) * sizeof(real));
  fill(x, b, h, &c, &s);
  end = lay_slopes(&k, w->slopes, c.keys);
  memset(w->slopes, 0, (end - w->slopes) * sizeof(real));
  memset(w->B, 0, SIZE * sizeof(real));
  if (MOMENTUM) memset(w->BS, 0, SIZE * sizeof(real));
  LAYERS(l) w->scale[l] = 0;
  for (long j = 0; j < c.rows; j++) memcpy(w->dy + j * V, dy + (gate + j * x->heads) * V, V * sizeof(real));
  LAYERS_BACK(l) {
    read_layer_back(&c, &s, &ds, &t, &k, l, M, S, next, w, W);
    for (long j = 0; l && j < c.rows; j++)
      for (int n = 0; n < H; n += LANES)
        store(w->dy + j * H + n, load(w->dh + j * WIDE(l) + n) * load(t.read.slope[l - 1] + j * H + n));
  }
  for (long j = 0; j < c.rows; j++) memcpy(d->q + (gate + j * x->heads) * K, w->dh + j * WIDE(0), K * sizeof(real));
  if (SCALED && c.whole) LAYERS(l) {
      scale_back(next + AT(l), WIDE(l) * OUT(l), scales(next)[l], w->scale_next[l], &x->rule, w->G + AT(l));
    }
  if (c.whole || INNER) write_back(&c, &s, &ds, &t.net, M, S, SUMMED ? next + SIZE : 0, &k, w);
  compare_back(M, w->WT, scales(W), x->aim + key * V, x->heads * V, threshold, x->heads, gain, &x->rule, c.keys, &t.net, &k, w->B,
               d->aim + key * V, threshold ? d->threshold + key : 0, dgain, w->scale);
  for (long j = 0; j < c.keys; j++)
    for (int n = 0; n < K; n++) d->k[(key + j * x->heads) * K + n] += k.dx[0][j * WIDE(0) + n];
  if (SIMPLEX) first_back(x, d, W, M, &t.first, gate, key, gain, dgain, w);
  fill_back(x, b, h, &c, &s, &ds, d);
  LAYERS(l) w->scale_next[l] = w->scale[l];
  real *swap = w->G;
  w->G = w->B, w->B = swap, swap = w->GS, w->GS = w->BS, w->BS = swap;
}
