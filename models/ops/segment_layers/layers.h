/* What one layer does with rows of a segment, between its attentions, and what these read; forward and back. */

/* y: what comes out, or on the way back its gradient */
static text inside(const layers *x, long l, long piece, real *y) {
  long D = x->width, W = D / x->heads, r = x->rows;
  real *qkv = kept(x, QKV, l, piece);
  return (text){x->texts, r, r, x->heads, W, 1 / sqrt(W), {qkv, r * 3 * D, 3 * D}, {qkv + D, r * 3 * D, 3 * D},
                {qkv + 2 * D, r * 3 * D, 3 * D}, {y, r * D, D}, x->cosine, x->sine, kept(x, SHARES, l, piece), 1};
}

static text across(const layers *x, long l, long piece, real *y) {
  long D = x->width, W = D / x->heads, r = x->rows, k = x->held;
  real *held = kept(x, KEYS_VALUES, l, piece);
  return (text){x->texts, r, k, x->heads, W, 1 / sqrt(W), {kept(x, ASKED, l, piece), r * D, D}, {held, k * 2 * D, 2 * D},
                {held + D, k * 2 * D, 2 * D}, {y, r * D, D}, 0, 0, kept(x, SEEN, l, piece), 0};
}

/* What one call works on: its segment, the rows' stream, and rows `from` .. `from + count - 1` of all texts. */
typedef struct {
  const layers *x;
  long piece, from, count;
  real *stream, *room;
} work;

/* Every layer's keys and values of held rows `from` .. */
static void hold(const work *w, const real *slots) {
  long D = w->x->width;
  for (long l = 0; l < w->x->depth; l++)
    mapped(w->x, l, HELD, 0, slots + w->from * D, D, 0, kept(w->x, KEYS_VALUES, l, w->piece) + w->from * 2 * D, 2 * D, w->count);
}

static void hold_back(const work *w, real *d_slots) {
  long D = w->x->width;
  real *to = d_slots + w->from * D;
  for (long l = 0; l < w->x->depth; l++)
    mapped(w->x, l, HELD, 1, slope(w->x, D_HELD, l, w->piece) + w->from * 2 * D, 2 * D, l ? to : 0, to, D, w->count);
}

static void enter(const work *w, long l) {
  const layers *x = w->x;
  long D = x->width;
  real *unit = kept(x, UNIT, l, w->piece) + w->from * D, *qkv = kept(x, QKV, l, w->piece) + w->from * 3 * D;
  norm_forward(w->stream + w->from * D, 0, 0, unit, kept(x, SCALE, l, w->piece) + w->from, w->count, D, x->eps, 1);
  mapped(x, l, QUERY_KEY, 0, unit, D, 0, qkv, 3 * D, w->count);
  mapped(x, l, VALUE, 0, unit, D, 0, qkv + 2 * D, 3 * D, w->count);
}

static void ask(const work *w, long l) {
  const layers *x = w->x;
  long D = x->width, at = w->from * D;
  real *unit = kept(x, UNIT_ASK, l, w->piece) + at;
  mapped(x, l, OUT, 0, kept(x, ATTENDED, l, w->piece) + at, D, w->stream + at, w->stream + at, D, w->count);
  if (!x->held) return;
  norm_forward(w->stream + at, 0, 0, unit, kept(x, SCALE_ASK, l, w->piece) + w->from, w->count, D, x->eps, 1);
  mapped(x, l, ASK, 0, unit, D, 0, kept(x, ASKED, l, w->piece) + at, D, w->count);
}

static void feed(const work *w, long l) {
  const layers *x = w->x;
  long D = x->width, at = w->from * D, I = UP(x->units);
  real *unit = kept(x, UNIT_FEED, l, w->piece) + at, *gates = kept(x, GATES, l, w->piece) + w->from * 2 * I;
  real *active = kept(x, ACTIVE, l, w->piece) + w->from * I, *stream = w->stream + at;
  if (x->held) mapped(x, l, FIND, 0, kept(x, FOUND, l, w->piece) + at, D, stream, stream, D, w->count);
  norm_forward(stream, 0, 0, unit, kept(x, SCALE_FEED, l, w->piece) + w->from, w->count, D, x->eps, 1);
  mapped(x, l, GATE, 0, unit, D, 0, gates, 2 * I, w->count);
  mapped(x, l, RISE, 0, unit, D, 0, gates + I, 2 * I, w->count);
  gate_forward(gates, active, w->count, I, 1);
  mapped(x, l, DOWN, 0, active, I, stream, stream, D, w->count);
}

static void feed_back(const work *w, long l, real *dy) {
  const layers *x = w->x;
  long D = x->width, at = w->from * D, I = UP(x->units), gates = w->from * 2 * I;
  real *d_active = w->room, *d_unit = d_active + HIGH * I, *d_gates = slope(x, D_GATES, l, w->piece) + gates;
  const real *d = slope(x, D_DOWN, l, w->piece) + at;
  real *to = slope(x, x->held ? D_FIND : D_OUT, l, w->piece) + at;
  mapped(x, l, DOWN, 1, d, D, 0, d_active, I, w->count);
  gate_backward(d_active, kept(x, GATES, l, w->piece) + gates, d_gates, w->count, I, 1);
  mapped(x, l, GATE, 1, d_gates, 2 * I, 0, d_unit, D, w->count);
  mapped(x, l, RISE, 1, d_gates + I, 2 * I, d_unit, d_unit, D, w->count);
  norm_backward(d_unit, d, kept(x, UNIT_FEED, l, w->piece) + at, kept(x, SCALE_FEED, l, w->piece) + w->from, to, w->count, D, 1);
  mapped(x, l, x->held ? FIND : OUT, 1, to, D, 0, dy + at, D, w->count);
}

static void ask_back(const work *w, long l, real *dy) {
  const layers *x = w->x;
  long D = x->width, at = w->from * D;
  real *d_unit = w->room, *to = slope(x, D_OUT, l, w->piece) + at;
  mapped(x, l, ASK, 1, slope(x, D_ASKED, l, w->piece) + at, D, 0, d_unit, D, w->count);
  norm_backward(d_unit, slope(x, D_FIND, l, w->piece) + at, kept(x, UNIT_ASK, l, w->piece) + at,
                kept(x, SCALE_ASK, l, w->piece) + w->from, to, w->count, D, 1);
  mapped(x, l, OUT, 1, to, D, 0, dy + at, D, w->count);
}

static void enter_back(const work *w, long l) {
  const layers *x = w->x;
  long D = x->width, at = w->from * D;
  real *d_unit = w->room, *d_qkv = slope(x, D_QKV, l, w->piece) + 3 * at;
  real *to = (l ? slope(x, D_DOWN, l - 1, w->piece) : w->stream) + at;
  mapped(x, l, QUERY_KEY, 1, d_qkv, 3 * D, 0, d_unit, D, w->count);
  mapped(x, l, VALUE, 1, d_qkv + 2 * D, 3 * D, d_unit, d_unit, D, w->count);
  norm_backward(d_unit, slope(x, D_OUT, l, w->piece) + at, kept(x, UNIT, l, w->piece) + at, kept(x, SCALE, l, w->piece) + w->from, to,
                w->count, D, 1);
}
