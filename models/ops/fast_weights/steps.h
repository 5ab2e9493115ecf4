/* What a chunk teaches a gated network, number by number, and how its columns are brought back to their length; with their
   backward passes. Include native.h before it. Letters: c tokens, d width, n hidden width; the gate and the linear half stand side
   by side in rows of 2 n. */
#define FLOOR ((real)1e-5) /* added to a column's length */

typedef struct {
  vec share, silu, slope; /* sigmoid, silu and its derivative */
} gate;

static inline gate opened(vec x) {
  vec share = sigmoid(x), silu = x * share;
  return (gate){share, silu, share + silu * (1 - share)};
}

/* keys [c, 2 n] and values [c, n], by which k and v give the gradients, of both [c, 2 n], hidden [c, n] and rates, a token's three
   `apart` from the next. */
static void taught(const real *both, const real *hidden, const real *rates, long apart, long c, long n, real *keys, real *values) {
  for (long t = 0; t < c; t++, both += 2 * n, hidden += n, keys += 2 * n, values += n, rates += apart)
    for (long i = 0; i < n; i += LANES) {
      gate open = opened(load(both + i));
      vec linear = load(both + n + i), h = load(hidden + i);
      store(keys + i, h * rates[0] * (linear * open.slope));
      store(keys + n + i, h * rates[2] * open.silu);
      store(values + i, open.silu * linear * rates[1]);
    }
}

/* Back: dkeys and dvalues on entry; both and hidden become their gradients, drates [c, 3] is written, as far apart as rates. */
static void taught_back(real *both, real *hidden, const real *rates, long apart, long c, long n, const real *dkeys,
                        const real *dvalues, real *drates) {
  for (long t = 0; t < c; t++, both += 2 * n, hidden += n, dkeys += 2 * n, dvalues += n, rates += apart, drates += apart) {
    vec sums[3] = {{0}, {0}, {0}};
    for (long i = 0; i < n; i += LANES) {
      gate open = opened(load(both + i));
      vec linear = load(both + n + i), h = load(hidden + i), to_keys = load(dkeys + i), to_linear = load(dkeys + n + i);
      vec to_values = load(dvalues + i), inner = to_keys * h * rates[0];
      vec through[3] = {to_keys * linear * open.slope, to_values * open.silu, to_linear * open.silu};
      vec bend = (open.share + open.slope - open.silu * open.share) * (1 - open.share);
      sums[0] += through[0] * h, sums[1] += through[1] * linear, sums[2] += through[2] * h;
      store(hidden + i, through[0] * rates[0] + through[2] * rates[2]);
      store(both + n + i, inner * open.slope + through[1] * rates[1]);
      store(both + i, (to_linear * h * rates[2] + to_values * linear * rates[1]) * open.slope + inner * bend * linear);
    }
    for (int r = 0; r < 3; r++) drates[r] = sum(sums[r]);
  }
}

/* made[c, n] = silu of the gate times the linear half. */
static void gated(const real *both, long c, long n, real *made) {
  for (long t = 0; t < c; t++, both += 2 * n, made += n)
    for (long i = 0; i < n; i += LANES) store(made + i, opened(load(both + i)).silu * load(both + n + i));
}

/* Back: both becomes its gradient, made is made again. */
static void gated_back(real *both, const real *dmade, long c, long n, real *made) {
  for (long t = 0; t < c; t++, both += 2 * n, dmade += n, made += n)
    for (long i = 0; i < n; i += LANES) {
      gate open = opened(load(both + i));
      vec linear = load(both + n + i), slope = load(dmade + i);
      store(made + i, open.silu * linear);
      store(both + i, slope * linear * open.slope);
      store(both + n + i, slope * open.silu);
    }
}

/* The lengths of LANES columns of w [rows, columns], from column j on. */
static inline vec lengths_of(const real *w, long rows, long columns, long j) {
  vec square = {0};
  for (long i = 0; i < rows; i++) square += load(w + i * columns + j) * load(w + i * columns + j);
  return root(square);
}

/* w [rows, columns] with columns of these lengths. */
static void rescale(real *w, long rows, long columns, const real *length) {
  for (long j = 0; j < columns; j += LANES) {
    vec factor = load(length + j) / (lengths_of(w, rows, columns, j) + FLOOR);
    for (long i = 0; i < rows; i++) store(w + i * columns + j, load(w + i * columns + j) * factor);
  }
}

/* Back: dw is the gradient of what was made on entry, of w on return; dlength is added to. */
static void rescale_back(const real *w, long rows, long columns, const real *length, real *dw, real *dlength) {
  const real tiny = sizeof(real) == 4 ? 1.17549435e-38 : 2.2250738585072014e-308;
  for (long j = 0; j < columns; j += LANES) {
    vec own = lengths_of(w, rows, columns, j), factor = load(length + j) / (own + FLOOR), along = {0};
    for (long i = 0; i < rows; i++) along += load(w + i * columns + j) * load(dw + i * columns + j);
    along /= own + FLOOR;
    vec turn = factor * along / choose(own < tiny, all(tiny), own);
    for (long i = 0; i < rows; i++) {
      real *at = dw + i * columns + j;
      store(at, load(at) * factor - load(w + i * columns + j) * turn);
    }
    store(dlength + j, load(dlength + j) + along);
  }
}
