/* What is given and kept, where each part of it lies, and the maps in the order in which tiles take them. */

#define HIGH 64 /* rows that pass a layer's maps together */

enum { QUERY_KEY, VALUE, OUT, ASK, HELD, FIND, GATE, RISE, DOWN, MAPS };
enum { UNIT, UNIT_ASK, UNIT_FEED, SCALE, SCALE_ASK, SCALE_FEED, QKV, SHARES, ATTENDED, ASKED, SEEN, FOUND, GATES, ACTIVE, KEYS_VALUES, KEPT };
enum { D_QKV, D_OUT, D_ASKED, D_FIND, D_GATES, D_DOWN, D_HELD, SLOPES }; /* of what each map made, each as large as that */

typedef struct {
  long texts, rows, width, heads, units, held, depth, apart; /* apart: parts from one layer's to the next one's in what is kept */
  double eps;
  const real *cosine, *sine;
  const real *const *weights, *const *gains; /* [depth, MAPS] and [depth, 3], a weight [out, in] */
  real *maps;                                /* the same as `pack` puts them */
  real *kept[KEPT], *slopes[SLOPES];         /* [depth, segments, ..] */
  long kept_size[KEPT], slope_size[SLOPES];  /* numbers of one layer at one segment */
} layers;

static inline real *kept(const layers *x, int kind, long l, long piece) {
  return x->kept[kind] + (l * x->apart + piece) * x->kept_size[kind];
}
static inline real *slope(const layers *x, int kind, long l, long piece) {
  return x->slopes[kind] + (l * x->apart + piece) * x->slope_size[kind];
}
static inline long made_by(const layers *x, int m) { /* outputs of a map */
  return m == QUERY_KEY || m == HELD ? 2 * x->width : m == GATE || m == RISE ? x->units : x->width;
}
static inline long given_to(const layers *x, int m) { return m == DOWN ? x->units : x->width; }
static inline long size_of(const layers *x, int m, int back) {
  return back ? made_by(x, m) * UP(given_to(x, m)) : given_to(x, m) * UP(made_by(x, m));
}

static real *packed(const layers *x, long l, int wanted, int back) {
  long all = 0, before = 0;
  for (int m = 0; m < MAPS; m++) {
    if (m == wanted) before = all;
    all += size_of(x, m, back);
  }
  return x->maps + l * all + before;
}

/* from + A W^T, or from + A W on the way back, of `rows` rows */
static void mapped(const layers *x, long l, int m, int back, const real *A, long down, const real *from, real *out, long pitch, long rows) {
  long depth = back ? made_by(x, m) : given_to(x, m), columns = back ? given_to(x, m) : made_by(x, m);
  map(A, down, packed(x, l, m, back), depth, from, out, pitch, rows, UP(columns));
}

/* Numbers that the packed maps take. */
long packed_numbers(const layers *x, int back) { return packed(x, x->depth, 0, back) - x->maps; }

/* The panel of columns `first` .. of W^T [in, out], each row times its gain. */
static void turn_panel(const real *W, const real *gain, long in, long here, long wide, real *to) {
  long whole = here == wide ? in / LANES * LANES : 0;
  transpose(W, in, to, wide, wide, whole);
  for (long i = whole; i < in; i++)
    for (long j = 0; j < wide; j++) to[i * wide + j] = j < here ? W[j * in + i] : 0;
  for (long i = 0; gain && i < in; i++)
    for (long j = 0; j < wide; j++) to[i * wide + j] *= gain[i];
}

/* The panel of columns `first` .. of W [out, in], each column times its gain. */
static void copy_panel(const real *W, const real *gain, long in, long out, long here, long wide, real *to) {
  for (long o = 0; o < out; o++, W += in, to += wide) {
    memset(to, 0, wide * sizeof(real)), memcpy(to, W, here * sizeof(real));
    for (long j = 0; gain && j < here; j++) to[j] *= gain[j];
  }
}

static void pack_one(const layers *x, long l, int m, int back) {
  const int norm[MAPS] = {0, 0, -1, 1, -1, -1, 2, 2, -1};
  const real *W = x->weights[l * MAPS + m], *gain = norm[m] < 0 ? 0 : x->gains[l * 3 + norm[m]];
  long out = made_by(x, m), in = given_to(x, m), columns = back ? in : out, whole = UP(columns);
  real *to = packed(x, l, m, back);
  for (long c = 0; W && c < whole; c += 2 * LANES) {
    long wide = least(2 * LANES, whole - c), here = least(wide, columns - c);
    if (back)
      copy_panel(W + c, gain ? gain + c : 0, in, out, here, wide, to + c * out);
    else
      turn_panel(W + c * in, gain, in, here, wide, to + c * in);
  }
}

/* Weights change between two readings of a text alone: they are packed once for all its segments. */
void pack(const layers *x, int back, int threads) {
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
  for (long l = 0; l < x->depth; l++)
    for (int m = 0; m < MAPS; m++) pack_one(x, l, m, back);
}
