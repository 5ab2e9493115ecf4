/* Newton-Schulz of a matrix, as models/ops/associative_memory/newton_schulz.py, and its backward pass: five times

     X <- a X + X B,  B = b G + c G G,  G = X^T X        from X = S / (|S| + SMALL), on the smaller side

   A matrix [in, out] with more columns than rows goes through it transposed. Zeros around a matrix stay zeros. */
#define NS_STEPS 5
static const real NS_A = 3.4445, NS_B = -4.7750, NS_C = 2.0315, NS_SMALL = 1e-3;

#define LARGEST(a, b) ((a) > (b) ? (a) : (b))
#define NS_LONG LARGEST(LARGEST(WIDE(0), WIDE(DEPTH - 1)), LARGEST(H, V))
#define NS_WHOLE (NS_LONG * NS_LONG)
#define NS_ROOM ((3 * NS_STEPS + 4) * NS_WHOLE)

/* Room for one matrix: X before and G, B in every step; spare ones for what has no name. */
typedef struct {
  real *x[NS_STEPS], *g[NS_STEPS], *b[NS_STEPS], *spare[4];
} descent;

static descent lay_descent(real *room) {
  descent d;
  for (int i = 0; i < NS_STEPS; i++) d.x[i] = room + 3 * i * NS_WHOLE, d.g[i] = d.x[i] + NS_WHOLE, d.b[i] = d.g[i] + NS_WHOLE;
  for (int i = 0; i < 4; i++) d.spare[i] = room + (3 * NS_STEPS + i) * NS_WHOLE;
  return d;
}

/* out[n, n] = scale from + A B where that is symmetric: what lies above the diagonal's blocks, and its reflection. */
static void symmetric(const real *A, long down, long along, const real *B, long depth, const real *from, real scale, real *out, long n) {
  for (long c = 0; c < n; c += 2 * LANES) {
    long columns = n - c < 2 * LANES ? n - c : 2 * LANES;
    product(A, down, along, B + c, n, depth, from ? from + c : 0, scale, out + c, n, c + columns, columns);
    transpose(out + c, n, out + c * n, n, c, columns);
  }
}

static void add_turned(const real *x, real *to, long n, real *room) { /* to = x + x^T */
  transpose(x, n, room, n, n, n);
  for (long i = 0; i < n * n; i += LANES) store(to + i, load(x + i) + load(room + i));
}

/* to = scale x, turned where the matrix [in, out] is. Returns whether it is; m and n are its sides then. */
static int upright(const real *S, long in, long out, real scale, real *to, long *m, long *n) {
  int turned = in < out;
  *m = turned ? out : in, *n = turned ? in : out;
  if (turned) transpose(S, out, to, in, in, out);
  for (long i = 0; i < in * out; i += LANES) store(to + i, load(turned ? to + i : S + i) * scale);
  return turned;
}

/* Leaves every step's X, G and B in d, and the result in `last`, unless that is NULL. */
static void descend(const descent *d, long m, long n, real *last) {
  for (int k = 0; k < NS_STEPS; k++) {
    symmetric(d->x[k], 1, n, d->x[k], m, 0, 0, d->g[k], n);
    for (long i = 0; i < n * n; i += LANES) store(d->spare[0] + i, load(d->g[k] + i) * NS_C);
    symmetric(d->spare[0], n, 1, d->g[k], n, d->g[k], NS_B, d->b[k], n);
    real *to = k < NS_STEPS - 1 ? d->x[k + 1] : last;
    if (to) product(d->x[k], n, 1, d->b[k], n, n, d->x[k], NS_A, to, n, m, n);
  }
}

static void newton_schulz(const real *S, long in, long out, real *to, real *room) {
  descent d = lay_descent(room);
  long m, n;
  int turned = upright(S, in, out, 1 / (sqrt(dot(S, S, in * out)) + NS_SMALL), d.x[0], &m, &n);
  descend(&d, m, n, turned ? d.spare[1] : to);
  if (turned) transpose(d.spare[1], n, to, m, m, n);
}

/* dS += share times the gradient of S, from G, that of its Newton-Schulz. */
static void newton_schulz_back(const real *S, long in, long out, const real *G, real share, real *dS, real *room) {
  descent d = lay_descent(room);
  long m, n;
  real length = sqrt(dot(S, S, in * out)), divisor = length + NS_SMALL, *dx = d.spare[1], *more = d.spare[2], *side = d.spare[3];
  upright(S, in, out, 1 / divisor, d.x[0], &m, &n);
  descend(&d, m, n, 0);
  int turned = upright(G, in, out, share, dx, &m, &n);
  for (int k = NS_STEPS - 1; k >= 0; k--) {
    product(d.x[k], 1, n, dx, n, m, 0, 0, more, n, n, n); /* D = X^T dX + its transpose */
    add_turned(more, more, n, side);
    product(more, n, 1, d.g[k], n, n, 0, 0, d.spare[0], n, n, n);
    add_turned(d.spare[0], d.spare[0], n, side); /* D G + G D */
    for (long i = 0; i < n * n; i += LANES) store(side + i, load(more + i) * NS_B + load(d.spare[0] + i) * NS_C);
    product(dx, n, 1, d.b[k], n, n, dx, NS_A, more, n, m, n);
    product(d.x[k], n, 1, side, n, n, more, 1, dx, n, m, n);
  }
  if (turned) {
    transpose(dx, n, more, m, m, n);
    dx = more;
  }
  real along = length ? dot(S, dx, in * out) / (length * divisor * divisor) : 0;
  for (long i = 0; i < in * out; i += LANES) store(dS + i, load(dS + i) + load(dx + i) / divisor - load(S + i) * along);
}
