/* What one head does with one segment, of row n, from token `start` on: recall, attend, learn. */

/* Rows [count, K] brought to unit RMS, into rows of all heads; `rms` keeps the factors. */
static void to_unit_rms(const real *from, real *to, real *rms, long heads, long count) {
  for (long r = 0; r < count; r++, from += K, to += heads * K, rms += heads) {
    vec squares = {0};
    for (long c = 0; c < K; c += LANES) squares += load(from + c) * load(from + c);
    *rms = 1 / (real)sqrt(sum(squares) / K + EPSILON);
    for (long c = 0; c < K; c += LANES) store(to + c, load(from + c) * *rms);
  }
}

/* SiLU of LANES numbers; its slopes go to `active`. */
INLINE vec silu(vec z, real *active) {
  vec share = sigmoid(z), value = z * share;
  store(active, share + value * (1 - share));
  return value;
}

/* A row brought to unit length; returns the factor. */
INLINE real to_unit(real *row) {
  vec squares = {0};
  for (long c = 0; c < K; c += LANES) squares += load(row + c) * load(row + c);
  real factor = 1 / (real)sqrt(sum(squares) + EPSILON);
  for (long c = 0; c < K; c += LANES) store(row + c, load(row + c) * factor);
  return factor;
}

/* What is asked of the memory, [segment / pool, K]: unit queries, or the means of `pool` of them brought to unit length again. */
static void ask(const context *x, long n, long start, long h, room *own) {
  for (long t = 0; t < x->segment; t++) {
    const real *heard = x->heard + spot_of(x, n, start + t, ASKED, h);
    real *to = (x->pool == 1 ? own->asked : own->single) + t * K;
    for (long c = 0; c < K; c += LANES) store(to + c, silu(load(heard + c), own->single_active + t * K + c));
    own->single_unit[t] = to_unit(to);
  }
  for (long r = 0; x->pool > 1 && r < x->segment / x->pool; r++) {
    real *to = own->asked + r * K;
    for (long c = 0; c < K; c += LANES) {
      vec total = {0};
      for (long t = r * x->pool; t < (r + 1) * x->pool; t++) total += load(own->single + t * K + c);
      store(to + c, total / (real)x->pool);
    }
    own->asked_unit[r] = to_unit(to);
  }
}

/* h = M(asked) from the weights as they stand, brought to unit RMS; the values of its layers stay in the room. */
static void recall(const context *x, const passed *m, long n, long start, long h, const real *W, room *own, int back) {
  long count = x->segment / x->pool, first = spot(x, n, x->time / x->pool, start / x->pool, h, 1);
  const real *in = own->asked;
  ask(x, n, start, h, own);
  EACH_LAYER(l) {
    real *out = l == DEPTH - 1 ? own->down : own->hidden[l];
    product(in, l ? H : K, 1, W + AT(l), OUT(l), IN(l), 0, 0, out, OUT(l), count, OUT(l));
    if (l == DEPTH - 1) break;
    for (long i = 0; i < count * H; i += LANES) {
      activated s = activation(load(out + i));
      store(out + i, s.value);
      if (back) store(own->slope[l] + i, s.slope);
    }
    in = out;
  }
  if (!back) to_unit_rms(own->down, m->recalled + first * K, m->rms + first, x->heads, count);
}

/* Rotary positions: pairs half a head apart turned by the angle of token t's place, or back. */
static inline void turn(const context *x, const real *from, real *to, long t, real scale, int back) {
  const real *cosine = x->cosine + t * HALF, *sine = x->sine + t * HALF;
  real sign = back ? -scale : scale;
  int i = 0;
  for (; i + LANES <= HALF; i += LANES) {
    vec c = load(cosine + i) * scale, s = load(sine + i) * sign, first = load(from + i), second = load(from + i + HALF);
    store(to + i, first * c - second * s), store(to + i + HALF, second * c + first * s);
  }
  for (; i < HALF; i++) {
    real c = cosine[i] * scale, s = sine[i] * sign, first = from[i], second = from[i + HALF];
    to[i] = first * c - second * s, to[i + HALF] = second * c + first * s;
  }
}

/* The head's queries, and its keys and values of P, h and S in the order in which tokens see them. */
static void gather(const context *x, const passed *m, long n, long start, long h, room *own) {
  real scale = 1 / (real)sqrt(K);
  long count = x->segment / x->pool, rows = x->time / x->pool;
  for (long p = 0; p < x->prefix; p++) {
    memcpy(own->keys + p * K, x->prefix_k + (p * x->heads + h) * K, K * sizeof(real));
    memcpy(own->values + p * K, x->prefix_v + (p * x->heads + h) * K, K * sizeof(real));
  }
  for (long t = 0; t < x->segment; t++) {
    long row = row_of_token(x, t) * K;
    turn(x, x->heard + spot_of(x, n, start + t, QUERY, h), own->q + t * K, t, scale, 0);
    turn(x, x->heard + spot_of(x, n, start + t, KEY, h), own->keys + row, t, 1, 0);
    memcpy(own->values + row, x->heard + spot_of(x, n, start + t, VALUE, h), K * sizeof(real));
  }
  for (long r = 0; r < count; r++) {
    const real *from = m->rows + spot(x, n, rows, start / x->pool + r, h, 2 * K);
    long row = row_of_recalled(x, r) * K;
    turn(x, from, own->keys + row, (r + 1) * x->pool - 1, 1, 0);
    memcpy(own->values + row, from + K, K * sizeof(real));
  }
  long all = UP(rows_of(x));
  for (long r = 0; r < all; r += LANES) transpose(own->keys + r * K, K, own->keys_turned + r, all, LANES, K);
}

/* The first `seen` of a row's scores become shares, the others zeros. */
static inline void softmax(real *row, long seen, long wide) {
  vec high = all(-INFINITY), total = {0};
  for (long c = 0; c < wide; c += LANES) {
    vec own = choose(LANE + (WHOLE)c < (WHOLE)seen, load(row + c), all(-INFINITY));
    high = choose(own > high, own, high);
  }
  real most = high[0];
  for (int i = 1; i < LANES; i++) most = high[i] > most ? high[i] : most;
  for (long c = 0; c < wide; c += LANES) {
    vec share = choose(LANE + (WHOLE)c < (WHOLE)seen, exp_of_negative(load(row + c) - most), (vec){0});
    total += share;
    store(row + c, share);
  }
  real whole_share = 1 / sum(total);
  for (long c = 0; c < wide; c += LANES) store(row + c, load(row + c) * whole_share);
}

/* Shares [high, wide] of the rows that tokens from t on see. */
static void weigh(const context *x, long t, long high, const room *own) {
  long pitch = UP(rows_of(x)), wide = UP(seen_by(x, t + high - 1));
  product(own->q + t * K, K, 1, own->keys_turned, pitch, K, 0, 0, own->scores, pitch, high, wide);
  for (long i = 0; i < high; i++) softmax(own->scores + i * pitch, seen_by(x, t + i), wide);
}

static void attend(const context *x, const passed *m, long n, long start, long h, room *own) {
  long all = x->heads * K, pitch = UP(rows_of(x)), count = x->segment / x->pool, rows = x->time / x->pool;
  long first = (n * rows + start / x->pool) * x->heads;
  map(m->recalled + first * K, all, x->recall + h * 2 * K * all, all, 0, m->rows + (first + h) * 2 * K, 2 * all, count, 2 * K);
  gather(x, m, n, start, h, own);
  for (long t = 0; t < x->segment; t += BLOCK) {
    long high = x->segment - t < BLOCK ? x->segment - t : BLOCK;
    weigh(x, t, high, own);
    product(own->scores, pitch, 1, own->values, K, seen_by(x, t + high - 1), 0, 0, m->attended + spot(x, n, x->time, start + t, h, K),
            all, high, K);
  }
}

/* The head's columns of y = x + W_o Attn, or without x. */
static void join(const context *x, const passed *m, long n, long start, long h) {
  long all = x->heads * K, row = n * x->time + start, first = columns_before(x, h), place = row * x->width + first;
  map(m->attended + row * all, all, x->out + first * all, all, x->x ? x->x + place : 0, m->y + place, x->width, x->segment,
      columns_before(x, h + 1) - first);
}

/* The memory's q, k, v of a segment: what the maps made through convolution, SiLU and, but for plain values, to unit length. */
static void prepare(const context *x, const real *made, long h, room *own) {
  const real *taps = x->taps + h * KERNEL * 3 * K;
  long pitch = x->heads * COLUMNS;
  for (long t = 0; t < x->segment; t++)
    for (int part = 0; part < 3; part++) {
      real *to = own->token[part] + t * K;
      for (long c = 0; c < K; c += LANES) {
        vec heard = {0};
        for (int k = 0; k < KERNEL; k++) heard += load(made + (t + k) * pitch + part * K + c) * load(taps + (k * 3 + part) * K + c);
        store(to + c, silu(heard, own->active[part] + t * K + c));
      }
      if (part < UNIT) own->unit[part][t] = to_unit(to);
    }
}

static inline real squash(real x) { return 1 / (1 + (sizeof(real) == 4 ? (real)expf(-x) : (real)exp(-x))); }

static void gate(const context *x, const real *made, long h, room *own) {
  for (long t = 0; t < x->segment; t++)
    for (int g = 0; g < GATES; g++) {
      const real *logit = made + (KERNEL - 1 + t) * x->heads * COLUMNS + 3 * K + g;
      const real *bias = x->bias + h * COLUMNS + 3 * K + g;
      const int rate = MOMENTUM * GATES, forget = rate + GATES;
      real momentum = MOMENTUM ? (real)x->ceiling * squash(logit[0] + bias[0]) : 0;
      own->momentum[t * GATES + g] = momentum;
      own->rate[t * GATES + g] = x->bound[h] * squash(logit[rate] + bias[rate]) * (1 - momentum);
      own->keep[t * GATES + g] = FORGET ? squash(-logit[forget] - bias[forget]) : 1;
    }
}

/* A segment of one head as the memory reads it. No token is the last before a state that is handed out. */
static text as_text(const context *x, const room *own) {
  return (text){1, x->segment, 1, x->chunk, -1, own->token[0], own->token[1], own->token[2], own->momentum, own->rate, own->keep};
}

static long kept_of(const context *x, long n, long h, long start) {
  return ((n * x->heads + h) * (x->time / x->segment) + start / x->segment) * pieces(x->segment, x->chunk) * 2 * SIZE;
}

static long trace_of(const context *x, long n, long h, long start) { return ((n * x->heads + h) * x->time + start) * TRACE; }

static void learn(const context *x, const passed *m, long n, long start, long h, room *own) {
  long pitch = x->heads * COLUMNS, row = n * (KERNEL - 1 + x->time) + start;
  real *made = m->made + row * pitch + h * COLUMNS;
  map(m->y + (n * x->time + start) * x->width, x->width, x->update + h * COLUMNS * x->width, x->width, 0, made + (KERNEL - 1) * pitch,
      pitch, x->segment, COLUMNS);
  prepare(x, made, h, own);
  gate(x, made, h, own);
  text one = as_text(x, own);
  read_text(&one, 0, 0, m->state + (n * x->heads + h) * 2 * SIZE, own->anchor, own->answer,
            m->traces ? m->traces + trace_of(x, n, h, start) : 0, m->kept ? m->kept + kept_of(x, n, h, start) : 0, 0);
  long first = spot(x, n, x->time, start, h, 1);
  to_unit_rms(own->answer, m->reads + first * K, m->read_rms + first, x->heads, x->segment);
}
