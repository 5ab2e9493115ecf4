/* Back over one segment of one head, in the opposite order: learn, attend, recall. */

typedef struct {
  real *y;               /* the rest of the model's on entry, all of it on return */
  const real *reads;
  real *made, *rows;     /* shaped as in `passed` */
  real *heard;
  real *prefix_k, *prefix_v, *taps, *bound; /* one for each row of the batch */
  real *state;
} sloped;

/* Back over `to_unit`, whose row and factor are given, and over the activation before it unless `active` is NULL. */
INLINE void unit_back(const real *slope, const real *row, real factor, const real *active, real *to) {
  vec both = {0};
  for (long c = 0; c < K; c += LANES) both += load(row + c) * load(slope + c);
  real along = sum(both);
  for (long c = 0; c < K; c += LANES) {
    vec found = (load(slope + c) - load(row + c) * along) * factor;
    store(to + c, active ? found * load(active + c) : found);
  }
}

/* Back over `to_unit_rms`: slopes of unit rows `made`, [count, all heads], to slopes [count, K] of what they were made of. */
static void unit_rms_back(const real *slope, long wide, const real *made, const real *rms, real *to, long heads, long count) {
  for (long r = 0; r < count; r++, slope += wide, made += heads * K, rms += heads, to += K) {
    vec both = {0};
    for (long c = 0; c < K; c += LANES) both += load(slope + c) * load(made + c);
    real along = sum(both) / K;
    for (long c = 0; c < K; c += LANES) store(to + c, (load(slope + c) - load(made + c) * along) * *rms);
  }
}

/* Back over `gate`: the logits' gradients, and that of the bound. */
static void gate_back(const context *x, real *dmade, const real *made, real *dbound, long h, const room *own) {
  for (long t = 0; t < x->segment; t++)
    for (int g = 0; g < GATES; g++) {
      long place = (KERNEL - 1 + t) * x->heads * COLUMNS + 3 * K + g, at = t * GATES + g;
      const real *bias = x->bias + h * COLUMNS + 3 * K + g;
      const int rate = MOMENTUM * GATES;
      real *to = dmade + place, share = squash(made[place + rate] + bias[rate]), left = 1 - own->momentum[at];
      real drate = own->drate[at], bound = x->bound[h];
      *dbound += drate * share * left;
      to[rate] += drate * bound * left * share * (1 - share);
      if (MOMENTUM) {
        real own_share = squash(made[place] + bias[0]);
        to[0] += (own->dmomentum[at] - drate * bound * share) * (real)x->ceiling * own_share * (1 - own_share);
      }
      if (FORGET) to[rate + GATES] -= own->dkeep[at] * own->keep[at] * (1 - own->keep[at]);
    }
}

/* Back over `prepare`: through norm and SiLU into dheard [segment, 3 K], then through the convolution. */
static void prepare_back(const context *x, real *dmade, const real *made, real *dtaps, long h, room *own) {
  const real *taps = x->taps + h * KERNEL * 3 * K;
  long pitch = x->heads * COLUMNS;
  for (long t = 0; t < x->segment; t++)
    for (int part = 0; part < 3; part++) {
      const real *active = own->active[part] + t * K, *slope = own->dtoken[part] + t * K;
      real *to = own->dheard + (t * 3 + part) * K;
      if (part < UNIT)
        unit_back(slope, own->token[part] + t * K, own->unit[part][t], active, to);
      else
        for (long c = 0; c < K; c += LANES) store(to + c, load(slope + c) * load(active + c));
    }
  for (int k = 0; k < KERNEL; k++)
    for (long c = 0; c < 3 * K; c += LANES) {
      vec tap = load(taps + k * 3 * K + c), total = {0};
      for (long t = 0; t < x->segment; t++) {
        vec slope = load(own->dheard + t * 3 * K + c);
        real *to = dmade + (t + k) * pitch + c;
        total += slope * load(made + (t + k) * pitch + c);
        store(to, load(to) + slope * tap);
      }
      store(dtaps + k * 3 * K + c, load(dtaps + k * 3 * K + c) + total);
    }
}

static void learn_back(const context *x, const passed *m, const sloped *d, long n, long start, long h, room *own) {
  long row = n * (KERNEL - 1 + x->time) + start, place = (row * x->heads + h) * COLUMNS, head = n * x->heads + h;
  real *G = d->state + head * 2 * SIZE;
  prepare(x, m->made + place, h, own);
  gate(x, m->made + place, h, own);
  long first = spot(x, n, x->time, start, h, 1);
  unit_rms_back(d->reads + first * K, x->heads * K, m->reads + first * K, m->read_rms + first, own->danswer, x->heads, x->segment);
  text one = as_text(x, own);
  gradients slopes = {own->dtoken[0], own->dtoken[1], own->dtoken[2], own->dmomentum, own->drate, own->dkeep};
  memcpy(own->memory->G, G, 2 * SIZE * sizeof(real));
  read_back(&one, 0, 0, own->memory, m->traces + trace_of(x, n, h, start), m->kept + kept_of(x, n, h, start), own->danswer, 0,
            &slopes);
  memcpy(G, own->memory->G, 2 * SIZE * sizeof(real));
  gate_back(x, d->made + place, m->made + place, d->bound + head, h, own);
  prepare_back(x, d->made + place, m->made + place, d->taps + head * KERNEL * 3 * K, h, own);
}

/* Back over the maps of y: the head's columns of its gradient. */
static void join_back(const context *x, const sloped *d, long n, long start, long h) {
  long pitch = x->heads * COLUMNS, first = columns_before(x, h);
  real *to = d->y + (n * x->time + start) * x->width + first;
  map(d->made + (n * (KERNEL - 1 + x->time) + KERNEL - 1 + start) * pitch, pitch, x->update + first * pitch, pitch, to, to, x->width,
      x->segment, columns_before(x, h + 1) - first);
}

/* Back over a block's shares: dS = P o (dP - what a row has in common with its output). */
static void weigh_back(const context *x, const real *y, const real *dy, long t, long high, const room *own) {
  long pitch = UP(rows_of(x)), all = x->heads * K, wide = UP(seen_by(x, t + high - 1));
  product(dy, K, 1, own->values_turned, pitch, K, 0, 0, own->dscores, pitch, high, wide);
  for (long i = 0; i < high; i++) {
    vec both = {0};
    for (long c = 0; c < K; c += LANES) both += load(y + i * all + c) * load(dy + i * K + c);
    real common = sum(both);
    for (long c = i * pitch; c < i * pitch + wide; c += LANES)
      store(own->dscores + c, load(own->scores + c) * (load(own->dscores + c) - common));
  }
}

/* The gradients of queries, keys and values go where their rows came from. */
static void scatter(const context *x, const sloped *d, long n, long start, long h, const room *own) {
  real scale = 1 / (real)sqrt(K);
  long count = x->segment / x->pool, rows = x->time / x->pool;
  for (long p = 0; p < x->prefix; p++)
    for (long c = 0; c < K; c += LANES) {
      real *k = d->prefix_k + spot(x, n, x->prefix, p, h, K) + c, *v = d->prefix_v + spot(x, n, x->prefix, p, h, K) + c;
      store(k, load(k) + load(own->dkeys + p * K + c)), store(v, load(v) + load(own->dvalues + p * K + c));
    }
  for (long t = 0; t < x->segment; t++) {
    long row = row_of_token(x, t) * K;
    turn(x, own->dq + t * K, d->heard + spot_of(x, n, start + t, QUERY, h), t, scale, 1);
    turn(x, own->dkeys + row, d->heard + spot_of(x, n, start + t, KEY, h), t, 1, 1);
    memcpy(d->heard + spot_of(x, n, start + t, VALUE, h), own->dvalues + row, K * sizeof(real));
  }
  for (long r = 0; r < count; r++) {
    real *to = d->rows + spot(x, n, rows, start / x->pool + r, h, 2 * K);
    long row = row_of_recalled(x, r) * K;
    turn(x, own->dkeys + row, to, (r + 1) * x->pool - 1, 1, 1);
    memcpy(to + K, own->dvalues + row, K * sizeof(real));
  }
}

static void attend_back(const context *x, const passed *m, const sloped *d, long n, long start, long h, room *own) {
  long all = x->heads * K, pitch = UP(rows_of(x)), place = spot(x, n, x->time, start, h, K);
  map(d->y + (n * x->time + start) * x->width, x->width, x->out + h * K * x->width, x->width, 0, own->dy, K, x->segment, K);
  gather(x, m, n, start, h, own);
  for (long r = 0; r < pitch; r += LANES) transpose(own->values + r * K, K, own->values_turned + r, pitch, LANES, K);
  memset(own->dkeys, 0, pitch * K * sizeof(real)), memset(own->dvalues, 0, pitch * K * sizeof(real));
  for (long t = 0; t < x->segment; t += BLOCK) {
    long high = x->segment - t < BLOCK ? x->segment - t : BLOCK, seen = seen_by(x, t + high - 1);
    const real *dy = own->dy + t * K;
    weigh(x, t, high, own);
    weigh_back(x, m->attended + place + t * all, dy, t, high, own);
    product(own->dscores, pitch, 1, own->keys, K, seen, 0, 0, own->dq + t * K, K, high, K);
    product(own->dscores, 1, pitch, own->q + t * K, K, high, own->dkeys, 1, own->dkeys, K, seen, K);
    product(own->scores, 1, pitch, dy, K, high, own->dvalues, 1, own->dvalues, K, seen, K);
  }
  scatter(x, d, n, start, h, own);
}

/* Back over `ask`, from dasked. */
static void ask_back(const context *x, const sloped *d, long n, long start, long h, room *own) {
  for (long r = 0; x->pool > 1 && r < x->segment / x->pool; r++) {
    real *slope = own->dasked + r * K;
    unit_back(slope, own->asked + r * K, own->asked_unit[r] / x->pool, 0, slope);
  }
  const real *rows = x->pool == 1 ? own->asked : own->single;
  for (long t = 0; t < x->segment; t++)
    unit_back(own->dasked + t / x->pool * K, rows + t * K, own->single_unit[t], own->single_active + t * K,
              d->heard + spot_of(x, n, start + t, ASKED, h));
}

/* Back over `recall`: the queries' gradients, and those of the weights that answered, W. */
static void recall_back(const context *x, const passed *m, const sloped *d, long n, long start, long h, room *own) {
  long all = x->heads * K, count = x->segment / x->pool, rows = x->time / x->pool, first = spot(x, n, rows, start / x->pool, h, 1);
  const real *W = m->kept + kept_of(x, n, h, start);
  real *G = d->state + (n * x->heads + h) * 2 * SIZE, *slope = own->up, *next = own->down;
  recall(x, m, n, start, h, W, own, 1);
  map(d->rows + (first - h) * 2 * K, 2 * all, x->recall + h * K * 2 * all, 2 * all, 0, next, K, count, K);
  unit_rms_back(next, K, m->recalled + first * K, m->rms + first, slope, x->heads, count);
  EACH_LAYER_BACK(l) {
    const real *in = l ? own->hidden[l ? l - 1 : 0] : own->asked;
    product(in, 1, l ? H : K, slope, OUT(l), count, G + AT(l), 1, G + AT(l), OUT(l), IN(l), OUT(l));
    transpose(W + AT(l), OUT(l), own->turned, IN(l), IN(l), OUT(l));
    real *to = l ? next : own->dasked;
    product(slope, OUT(l), 1, own->turned, IN(l), OUT(l), 0, 0, to, l ? H : K, count, IN(l));
    for (long i = 0; l && i < count * H; i += LANES) store(to + i, load(to + i) * load(own->slope[l ? l - 1 : 0] + i));
    next = slope, slope = to;
  }
  ask_back(x, d, n, start, h, own);
}
