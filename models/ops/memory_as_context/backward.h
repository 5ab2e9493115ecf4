/* Back over one segment of one head, in the opposite order: learn, attend, recall. */

typedef struct {
  real *y;               /* the rest of the model's on entry, all of it on return */
  const real *reads;
  real *made, *rows;     /* shaped as in `passed` */
  real *asked, *q, *k, *v;
  real *prefix_k, *prefix_v, *taps, *bound; /* one for each row of the batch */
  real *state;
} sloped;

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
      const real *value = own->token[part] + t * K, *heard = own->heard[part] + t * K, *slope = own->dtoken[part] + t * K;
      real *to = own->dheard + (t * 3 + part) * K, scale = part < UNIT ? own->unit[part][t] : 1, along = 0;
      if (part < UNIT) {
        vec both = {0};
        for (long c = 0; c < K; c += LANES) both += load(value + c) * load(slope + c);
        along = sum(both);
      }
      for (long c = 0; c < K; c += LANES) {
        vec z = load(heard + c), share = sigmoid(z);
        store(to + c, (load(slope + c) - load(value + c) * along) * scale * (share + z * share * (1 - share)));
      }
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
  for (long t = 0; t < x->segment; t++)
    memcpy(own->danswer + t * K, d->reads + spot(x, n, x->time, start + t, h, K), K * sizeof(real));
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
  product(d->made + (n * (KERNEL - 1 + x->time) + KERNEL - 1 + start) * pitch, pitch, 1, x->update + first, x->width, pitch, to, 1, to,
          x->width, x->segment, columns_before(x, h + 1) - first);
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
  for (long i = 0; i < x->prefix * K; i++) {
    long place = spot(x, n, x->prefix, i / K, h, K) + i % K;
    d->prefix_k[place] += own->dkeys[i], d->prefix_v[place] += own->dvalues[i];
  }
  for (long t = 0; t < x->segment; t++) {
    long place = spot(x, n, x->time, start + t, h, K), row = row_of_token(x, t) * K;
    turn(x, own->dq + t * K, d->q + place, t, scale, 1);
    turn(x, own->dkeys + row, d->k + place, t, 1, 1);
    memcpy(d->v + place, own->dvalues + row, K * sizeof(real));
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
  product(d->y + (n * x->time + start) * x->width, x->width, 1, x->out + h * K, all, x->width, 0, 0, own->dy, K, x->segment, K);
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

/* Back over `recall`: the queries' gradients, and those of the weights that answered, W. */
static void recall_back(const context *x, const passed *m, const sloped *d, long n, long start, long h, room *own) {
  long all = x->heads * K, count = x->segment / x->pool, rows = x->time / x->pool, first = spot(x, n, rows, start / x->pool, h, 1);
  const real *W = m->kept + kept_of(x, n, h, start);
  real *G = d->state + (n * x->heads + h) * 2 * SIZE, *slope = own->up, *next = own->down;
  recall(x, m, n, start, h, W, own, 1);
  product(d->rows + (first - h) * 2 * K, 2 * all, 1, x->recall + h * K, all, 2 * all, 0, 0, slope, K, count, K);
  for (long r = 0; r < count; r++) {
    const real *made = m->recalled + (first + r * x->heads) * K;
    vec both = {0};
    for (long c = 0; c < K; c += LANES) both += load(slope + r * K + c) * load(made + c);
    real along = sum(both) / K, scale = m->scale[first + r * x->heads];
    for (long c = 0; c < K; c += LANES) store(slope + r * K + c, (load(slope + r * K + c) - load(made + c) * along) * scale);
  }
  EACH_LAYER_BACK(l) {
    const real *in = l ? own->hidden[l ? l - 1 : 0] : x->asked + first * K;
    product(in, 1, l ? H : all, slope, OUT(l), count, G + AT(l), 1, G + AT(l), OUT(l), IN(l), OUT(l));
    transpose(W + AT(l), OUT(l), own->turned, IN(l), IN(l), OUT(l));
    real *to = l ? next : d->asked + first * K;
    product(slope, OUT(l), 1, own->turned, IN(l), OUT(l), 0, 0, to, l ? H : all, count, IN(l));
    for (long i = 0; l && i < count * H; i += LANES) store(to + i, load(to + i) * load(own->slope[l ? l - 1 : 0] + i));
    next = slope, slope = to;
  }
}
