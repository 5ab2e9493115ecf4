/* The inner loss: b(r), the negative gradient of it with respect to what a memory answers, r = aim - answer.

   LOSS 0 squared: r   1 p-norm: tanh(sharpness r) (r^2 + 1e-6)^((p - 1) / 2), or sign and absolute value where sharpness is 0
        2 Huber: r min(1, threshold / |r|)   3 Huber, each channel held to +-threshold */
#define SMOOTH ((real)1e-6)

typedef struct {
  real epsilon, power, sharpness, norm, norm_floor, weight_floor, mass;
} law;

static inline real to_the(real x, real power) {
  return power == 2 ? x * x : power == 1 ? x : power == 0 ? 1 : sizeof(real) == 4 ? powf(x, power) : pow(x, power);
}

/* up = b(r), [V]. */
static inline void bend_error(const real *r, real threshold, const law *rule, real *up) {
  if (LOSS == 2) {
    vec squares = {0};
    for (int j = 0; j < V; j += LANES) squares += load(r + j) * load(r + j);
    real length = sqrt(sum(squares)), share = length > threshold ? threshold / length : 1;
    for (int j = 0; j < V; j += LANES) store(up + j, load(r + j) * share);
    return;
  }
  for (int j = 0; j < V; j += LANES) {
    vec x = load(r + j);
    if (LOSS == 3) x = choose(x > threshold, all(threshold), choose(x < -threshold, all(-threshold), x));
    if (LOSS == 1 && rule->sharpness) {
      vec square = x * x + SMOOTH, t = tanh_of(x * rule->sharpness);
      if (rule->power != 3)
        for (int i = 0; i < LANES; i++) square[i] = to_the(square[i], (rule->power - 1) / 2);
      x = t * square;
    } else if (LOSS == 1) {
      vec size = choose(x < 0, -x, x), sign = choose(x < 0, all(-1), choose(x > 0, all(1), (vec){0}));
      for (int i = 0; i < LANES; i++) size[i] = to_the(size[i], rule->power - 1);
      x = sign * size;
    }
    store(up + j, x);
  }
}

/* dr = b'(r) d, [V], in the place of d; the threshold's gradient is added to where there is one. */
static inline void bend_error_back(const real *r, real threshold, const law *rule, real *d, real *dthreshold) {
  if (LOSS == 0) return;
  if (LOSS == 2) {
    vec squares = {0}, along = {0};
    for (int j = 0; j < V; j += LANES) squares += load(r + j) * load(r + j), along += load(r + j) * load(d + j);
    real square = sum(squares), length = sqrt(square);
    if (!(length > threshold)) return;
    real both = sum(along), share = threshold / length;
    *dthreshold += both / length;
    for (int j = 0; j < V; j += LANES) store(d + j, (load(d + j) - load(r + j) * (both / square)) * share);
    return;
  }
  vec thresholds = {0};
  for (int j = 0; j < V; j += LANES) {
    vec x = load(r + j), slope = load(d + j);
    if (LOSS == 3) {
      vec held = choose(x > threshold, slope, choose(x < -threshold, -slope, (vec){0}));
      thresholds += held;
      slope = choose((x > threshold) | (x < -threshold), (vec){0}, slope);
    } else if (rule->sharpness) {
      vec square = x * x + SMOOTH, t = tanh_of(x * rule->sharpness), power = square, below = all(1);
      if (rule->power != 3)
        for (int i = 0; i < LANES; i++) {
          power[i] = to_the(square[i], (rule->power - 1) / 2);
          below[i] = to_the(square[i], (rule->power - 3) / 2);
        }
      slope *= rule->sharpness * (1 - t * t) * power + t * x * below * (rule->power - 1);
    } else {
      for (int i = 0; i < LANES; i++)
        slope[i] *= x[i] ? (rule->power - 1) * to_the(x[i] < 0 ? -x[i] : x[i], rule->power - 2) : 0;
    }
    store(d + j, slope);
  }
  if (LOSS == 3) *dthreshold += sum(thresholds);
}

/* LN'(a) at normed n, its Jacobian, which is symmetric: (a - mean a - n mean(a n)) inverse. */
static inline void norm_back(const real *a, const real *n, real inverse, real *to) {
  vec sums_ = {0}, along = {0};
  for (int j = 0; j < V; j += LANES) sums_ += load(a + j), along += load(a + j) * load(n + j);
  real mean = sum(sums_) / V, share = sum(along) / V;
  for (int j = 0; j < V; j += LANES) store(to + j, (load(a + j) - mean - load(n + j) * share) * inverse);
}

static inline void rest_of(const real *aim, const real *gain, const real *answer, real *r) {
  for (int j = 0; j < V; j += LANES) store(r + j, load(aim + j) - (gain ? load(answer + j) * load(gain + j) : load(answer + j)));
}

/* The error e [V] of an output z [V]; normed is LN(z), or z itself. Returns LN's inverse deviation. */
static inline real error(const real *z, const real *aim, const real *gain, real threshold, const law *rule, real *normed, real *e) {
  real r[V], up[V], inverse = 1;
  if (RESIDUAL) {
    vec total = {0}, squares = {0};
    for (int j = 0; j < V; j += LANES) total += load(z + j);
    real mean = sum(total) / V;
    for (int j = 0; j < V; j += LANES) squares += (load(z + j) - mean) * (load(z + j) - mean);
    inverse = 1 / sqrt(sum(squares) / V + rule->epsilon);
    for (int j = 0; j < V; j += LANES) store(normed + j, (load(z + j) - mean) * inverse);
  } else
    memcpy(normed, z, V * sizeof(real));
  rest_of(aim, gain, normed, r);
  bend_error(r, threshold, rule, RESIDUAL ? up : e);
  if (RESIDUAL) norm_back(up, normed, inverse, e);
  return inverse;
}

/* Back over `error`: dz and daim [V] from de, which is lost; the threshold's and the gain's gradients are added to. */
static inline void error_back(real *de, const real *aim, const real *gain, real threshold, const law *rule, const real *normed,
                              real inverse, const real *e, real *dz, real *daim, real *dthreshold, real *dgain) {
  real r[V], up[V], into[V];
  vec along = {0}, errors = {0}, overlaps = {0};
  rest_of(aim, gain, normed, r);
  if (RESIDUAL) {
    bend_error(r, threshold, rule, up);
    norm_back(de, normed, inverse, into);
    bend_error_back(r, threshold, rule, into, dthreshold);
  } else {
    memcpy(into, de, sizeof into);
    bend_error_back(r, threshold, rule, into, dthreshold);
  }
  for (int j = 0; j < V; j += LANES) {
    store(daim + j, load(daim + j) + load(into + j));
    if (dgain) store(dgain + j, load(dgain + j) - load(into + j) * load(normed + j));
    store(into + j, gain ? -load(into + j) * load(gain + j) : -load(into + j));
  }
  if (!RESIDUAL) {
    memcpy(dz, into, sizeof into);
    return;
  }
  for (int j = 0; j < V; j += LANES) {
    along += load(de + j) * load(normed + j), errors += load(de + j) * load(e + j), overlaps += load(up + j) * load(normed + j);
  }
  real share = sum(along) / V * inverse, both = sum(errors) / V * inverse, overlap = sum(overlaps) / V * inverse;
  for (int j = 0; j < V; j += LANES) store(into + j, load(into + j) - load(up + j) * share - load(de + j) * overlap);
  norm_back(into, normed, inverse, dz);
  for (int j = 0; j < V; j += LANES) store(dz + j, load(dz + j) - load(normed + j) * both);
}
