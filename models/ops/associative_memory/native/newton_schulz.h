/* Newton-Schulz of a matrix, as models/ops/associative_memory/newton_schulz.py, and its backward pass. Five times

     X <- X Q,  Q = a + b G + c G G,  G = X^T X        from X = S / (|S| + SMALL), on the smaller side

   Where X is long, two steps go together: all that multiplies X is a polynomial of G, so these matrices commute and are symmetric,
   the second G is G Q Q, and X is met once, by P, the product of both Q. Not more than two: a rounding of G grows by a a, twelve, a
   step, and what it hides are small singular values, of which G has but the squares and which end near 1.
   With D = X^T dY, the gradient of X is dY P + X L, where L is the derivative of P in the direction D + D^T: that of a polynomial of a
   symmetric matrix is its own adjoint, so it goes forward beside P.

   A matrix [in, out] with more columns than rows goes through it transposed. Zeros around a matrix stay zeros. */
#define NS_STEPS 5
static const real NS_A = 3.4445, NS_B = -4.7750, NS_C = 2.0315, NS_SMALL = 1e-3;

#define LARGEST(a, b) ((a) > (b) ? (a) : (b))
#define NS_LONG LARGEST(LARGEST(WIDE(0), WIDE(DEPTH - 1)), LARGEST(H, V))
#define NS_WHOLE (NS_LONG * NS_LONG)
#define NS_ROOM ((2 * NS_STEPS + 14) * NS_WHOLE)
#define NS_TOGETHER(m, n) ((m) > (n) ? 2 : 1)

/* G, G G, Q, G Q and P, n x n each, or their derivatives, and a spare one. */
typedef struct {
  real *g, *square, *q, *both, *p, *spare;
} powers;

/* Room for one matrix: X and G before the steps that go together, powers and their derivatives, and two spare ones. */
typedef struct {
  real *x[NS_STEPS], *g[NS_STEPS], *spare[2];
  powers t, d;
} descent;

static powers lay_powers(real *room) {
  return (powers){room, room + NS_WHOLE, room + 2 * NS_WHOLE, room + 3 * NS_WHOLE, room + 4 * NS_WHOLE, room + 5 * NS_WHOLE};
}

static descent lay_descent(real *room) {
  descent d = {.t = lay_powers(room), .d = lay_powers(room + 6 * NS_WHOLE)};
  room += 12 * NS_WHOLE;
  for (int i = 0; i < NS_STEPS; i++) d.x[i] = room + 2 * i * NS_WHOLE, d.g[i] = d.x[i] + NS_WHOLE;
  for (int i = 0; i < 2; i++) d.spare[i] = room + (2 * NS_STEPS + i) * NS_WHOLE;
  return d;
}

/* out[n, n] = A B, or A B + C E unless C is NULL, where that is symmetric: what lies above the diagonal's blocks, and its reflection.
   A[n, depth] stands turned where `turned`. */
static void symmetric(const real *A, int turned, long depth, const real *B, const real *C, const real *E, real *out, long n) {
  for (long c = 0; c < n; c += 2 * LANES) {
    long columns = n - c < 2 * LANES ? n - c : 2 * LANES;
    product(A, turned ? 1 : depth, turned ? n : 1, B + c, n, depth, 0, 0, out + c, n, c + columns, columns);
    if (C) product(C, n, 1, E + c, n, n, out + c, 1, out + c, n, c + columns, columns);
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

/* to = b of + c squared */
static void blended(const real *of, const real *squared, real *to, long n) {
  for (long i = 0; i < n * n; i += LANES) store(to + i, load(squared + i) * NS_C + load(of + i) * NS_B);
}

/* P of a step, or of two, from t->g, which is lost then; and, unless d is NULL, its derivative d->p in the symmetric direction d->g. */
static void polynomial(powers *t, powers *d, int steps, long n) {
  for (int k = 0; k < steps; k++) {
    if (k) {
      symmetric(t->g, 0, n, t->p, 0, 0, t->both, n);
      if (d) symmetric(d->g, 0, n, t->p, t->g, d->p, d->both, n), symmetric(d->both, 0, n, t->p, t->both, d->p, d->g, n);
      symmetric(t->both, 0, n, t->p, 0, 0, t->g, n);
    }
    real *q = k ? t->q : t->p, *dq = d ? k ? d->q : d->p : 0;
    symmetric(t->g, 0, n, t->g, 0, 0, t->square, n);
    blended(t->g, t->square, q, n);
    for (long i = 0; i < n; i++) q[i * n + i] += NS_A;
    if (d) {
      product(t->g, n, 1, d->g, n, n, 0, 0, d->square, n, n, n);
      add_turned(d->square, d->square, n, d->spare);
      blended(d->g, d->square, dq, n);
    }
  }
  if (steps == 1) return;
  real *P = t->both; /* of no more use */
  symmetric(t->p, 0, n, t->q, 0, 0, P, n);
  if (d) symmetric(d->p, 0, n, t->q, t->p, d->q, d->both, n), d->p = d->both;
  t->p = P;
}

/* Leaves X and G before the steps that go together in d, and the result in `last`, unless that is NULL. Returns how often. */
static int descend(const descent *d, long m, long n, real *last) {
  int together = NS_TOGETHER(m, n), i = 0;
  for (int k = 0; k < NS_STEPS; k += together, i++) {
    int steps = NS_STEPS - k < together ? NS_STEPS - k : together;
    symmetric(d->x[i], 1, m, d->x[i], 0, 0, d->g[i], n);
    real *to = k + steps < NS_STEPS ? d->x[i + 1] : last;
    if (!to) continue;
    powers t = d->t;
    memcpy(t.g, d->g[i], n * n * sizeof(real));
    polynomial(&t, 0, steps, n);
    product(d->x[i], n, 1, t.p, n, n, 0, 0, to, n, m, n);
  }
  return i;
}

static void newton_schulz(const real *S, long in, long out, real *to, real *room) {
  descent d = lay_descent(room);
  long m, n;
  int turned = upright(S, in, out, 1 / (sqrt(dot(S, S, in * out)) + NS_SMALL), d.x[0], &m, &n);
  descend(&d, m, n, turned ? d.spare[0] : to);
  if (turned) transpose(d.spare[0], n, to, m, m, n);
}

/* dS += share times the gradient of S, from G, that of its Newton-Schulz. Returns that of the share. */
static real newton_schulz_back(const real *S, long in, long out, const real *G, real share, real *dS, real *room) {
  descent d = lay_descent(room);
  long m, n;
  real length = sqrt(dot(S, S, in * out)), divisor = length + NS_SMALL, *dx = d.spare[0], *more = d.spare[1], dshare = 0;
  upright(S, in, out, 1 / divisor, d.x[0], &m, &n);
  int parts = descend(&d, m, n, 0), together = NS_TOGETHER(m, n), turned = upright(G, in, out, 1, dx, &m, &n);
  for (int i = parts - 1; i >= 0; i--) {
    powers t = d.t, slope = d.d;
    t.g = d.g[i];
    product(d.x[i], 1, n, dx, n, m, 0, 0, more, n, n, n);
    add_turned(more, slope.g, n, slope.spare);
    polynomial(&t, &slope, NS_STEPS - i * together < together ? NS_STEPS - i * together : together, n);
    if (i == parts - 1) dshare = dot(more, t.p, n * n);
    product(dx, n, 1, t.p, n, n, 0, 0, more, n, m, n);
    product(d.x[i], n, 1, slope.p, n, n, more, 1, dx, n, m, n);
  }
  if (turned) transpose(dx, n, more, m, m, n), dx = more;
  real along = length ? dot(S, dx, in * out) / (length * divisor * divisor) : 0;
  for (long i = 0; i < in * out; i += LANES) store(dS + i, load(dS + i) + (load(dx + i) / divisor - load(S + i) * along) * share);
  return dshare;
}
