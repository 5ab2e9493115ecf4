/* What is given and kept, where each part of it lies, and the maps in the order in which tiles take them. */

#define HIGH 64           /* rows that pass a layer's maps together */
#define PANEL (2 * LANES) /* columns of a map that are made together */

enum { QUERY_KEY, VALUE, OUT, ASK, HELD, FIND, GATE, RISE, DOWN, MAPS };
enum { UNIT, UNIT_ASK, UNIT_FEED, SCALE, SCALE_ASK, SCALE_FEED, QKV, SHARES, ATTENDED, ASKED, SEEN, FOUND, GATES, ACTIVE, KEYS_VALUES,
       KEPT }; /* what is kept of a layer at a segment: unit rows and their scales, .., shares of both attentions, .. */
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
static inline long panels(long columns) { return (columns + PANEL - 1) / PANEL * PANEL; }
static inline long size_of(const layers *x, int m, int back) {
  return back ? made_by(x, m) * panels(given_to(x, m)) : given_to(x, m) * panels(made_by(x, m));
}

static real *packed(const layers *x, long l, int wanted, int back) {
  long all = 0, before = 0;
  for (int m = 0; m < MAPS; m++) {
    if (m == wanted) before = all;
    all += size_of(x, m, back);
  }
  return x->maps + l * all + before;
}

/* A panel of which only the first vectors have a place in `out`. A tile as wide as all others: one of a single row and a single vector
   is compiled to other roundings than higher ones, and how rows lie in tiles hangs on the number of threads. */
static void narrow(const real *A, long down, const real *B, long depth, const real *from, real *out, long pitch, long rows) {
  real both[HIGH * PANEL];
  for (long r = 0; from && r < rows; r++) store(both + r * PANEL, load(from + r * pitch)), store(both + r * PANEL + LANES, (vec){0});
  strip(A, down, 1, B, PANEL, depth, from ? both : 0, 1, both, PANEL, rows, 2);
  for (long r = 0; r < rows; r++) store(out + r * pitch, load(both + r * PANEL));
}

/* from + A W^T, or from + A W on the way back, of up to HIGH rows */
static void mapped(const layers *x, long l, int m, int back, const real *A, long down, const real *from, real *out, long pitch,
                   long rows) {
  long depth = back ? made_by(x, m) : given_to(x, m), columns = UP(back ? given_to(x, m) : made_by(x, m)), c = 0;
  const real *B = packed(x, l, m, back);
  for (; c + PANEL <= columns; c += PANEL)
    strip(A, down, 1, B + depth * c, PANEL, depth, from ? from + c : 0, 1, out + c, pitch, rows, 2);
  if (c < columns) narrow(A, down, B + depth * c, depth, from ? from + c : 0, out + c, pitch, rows);
}

/* Numbers that the packed maps take. */
long packed_numbers(const layers *x, int back) { return packed(x, x->depth, 0, back) - x->maps; }

/* A panel of W^T [in, out], `here` of its columns, each row times its gain. */
static void turn_panel(const real *W, const real *gain, long in, long here, real *to) {
  long whole = here == PANEL ? in / LANES * LANES : 0;
  transpose(W, in, to, PANEL, PANEL, whole);
  for (long i = whole; i < in; i++)
    for (long j = 0; j < PANEL; j++) to[i * PANEL + j] = j < here ? W[j * in + i] : 0;
  for (long i = 0; gain && i < in; i++)
    for (long j = 0; j < PANEL; j++) to[i * PANEL + j] *= gain[i];
}

/* A panel of W [out, in], `here` of its columns, each times its gain. */
static void copy_panel(const real *W, const real *gain, long in, long out, long here, real *to) {
  for (long o = 0; o < out; o++, W += in, to += PANEL) {
    memset(to, 0, PANEL * sizeof(real)), memcpy(to, W, here * sizeof(real));
    for (long j = 0; gain && j < here; j++) to[j] *= gain[j];
  }
}

static void pack_one(const layers *x, long l, int m, int back) {
  const int norm[MAPS] = {0, 0, -1, 1, -1, -1, 2, 2, -1};
  const real *W = x->weights[l * MAPS + m], *gain = norm[m] < 0 ? 0 : x->gains[l * 3 + norm[m]];
  long out = made_by(x, m), in = given_to(x, m), columns = back ? in : out;
  real *to = packed(x, l, m, back);
  for (long c = 0; W && c < columns; c += PANEL) {
    long here = least(PANEL, columns - c);
    if (back)
      copy_panel(W + c, gain ? gain + c : 0, in, out, here, to + c * out);
    else
      turn_panel(W + c * in, gain, in, here, to + c * in);
  }
}

/* Weights change between two readings of a text alone: they are packed once for all its segments. */
void pack(const layers *x, int back, int threads) {
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
  for (long l = 0; l < x->depth; l++)
    for (int m = 0; m < MAPS; m++) pack_one(x, l, m, back);
}
