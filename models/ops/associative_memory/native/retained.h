/* What a memory is made of beside its steps: a norm that divides it (SCALED), or probabilities (SIMPLEX). */

/* s of a layer A: max(|A|_q, floor)^(2 - q). */
static real scale_of(const real *A, long count, const law *rule) {
  vec total = {0};
  for (long i = 0; i < count; i += LANES) {
    vec a = load(A + i), size = choose(a < 0, -a, a);
    if (rule->norm == 4)
      size = size * size * (size * size);
    else
      for (int j = 0; j < LANES; j++) size[j] = size[j] ? to_the(size[j], rule->norm) : 0;
    total += size;
  }
  real length = pow(sum(total), 1 / rule->norm);
  return rule->norm == 2 ? 1 : pow(length > rule->norm_floor ? length : rule->norm_floor, 2 - rule->norm);
}

/* G += ds times the derivative of s. */
static void scale_back(const real *A, long count, real s, real ds, const law *rule, real *G) {
  real q = rule->norm, length = q == 2 ? 0 : pow(s, 1 / (2 - q));
  if (q == 2 || !(length > rule->norm_floor * (1 + (sizeof(real) == 4 ? 1e-6 : 1e-14)))) return;
  real share = ds * (2 - q) * s / pow(length, q);
  for (long i = 0; i < count; i += LANES) {
    vec a = load(A + i), raised = a * a * a;
    if (q != 4)
      for (int j = 0; j < LANES; j++) raised[j] = a[j] < 0 ? -to_the(-a[j], q - 1) : a[j] ? to_the(a[j], q - 1) : 0;
    store(G + i, load(G + i) + raised * share);
  }
}

/* log x for x > 0 that are not tiny: x = 2^n m, 1 <= m < 2; NaN for what is not finite. */
static inline vec logarithm(vec x) {
  const int digits = sizeof(real) == 4 ? 23 : 52;
  whole bits;
  vec lost = x - x;
  memcpy(&bits, &x, sizeof bits);
  whole n = (bits >> digits) - (WHOLE)(sizeof(real) == 4 ? 127 : 1023);
  bits -= n << digits;
  memcpy(&x, &bits, sizeof bits);
  return __builtin_convertvector(n, vec) * (real)0.69314718055994531 + log_of_one_and(x - 1) + lost;
}

static inline vec at_least(vec x, real floor) { return choose(x < floor, all(floor), x); }

static inline real mass_of(const law *rule, int in) { return rule->mass ? rule->mass : sqrt((real)in); }

/* One layer's first step of a chunk: to = mass softmax(keep log max(W, floor) + rate a^T e) over the inputs of each output. */
static void step_in_logarithms(const real *W, const real *a, const real *e, real keep, real rate, const law *rule, int in, int out,
                               real *to) {
  for (int c = 0; c < out; c += LANES) {
    vec highest = all(-INFINITY), total = {0}, error = load(e + c) * rate;
    for (int i = 0; i < in; i++) {
      vec x = logarithm(at_least(load(W + i * out + c), rule->weight_floor)) * keep + error * a[i];
      highest = choose(x > highest, x, highest), store(to + i * out + c, x);
    }
    for (int i = 0; i < in; i++) {
      vec x = exp_of_negative(load(to + i * out + c) - highest);
      total += x, store(to + i * out + c, x);
    }
    vec share = mass_of(rule, in) / total;
    for (int i = 0; i < in; i++) store(to + i * out + c, load(to + i * out + c) * share);
  }
}

/* Back over it: G is the gradient of `to` on entry, of W on return; the others' gradients are added to. */
static void step_in_logarithms_back(const real *W, const real *to, const real *a, const real *e, real keep, real rate, const law *rule,
                                    int in, int out, real *G, real *da, real *de, real *dkeep, real *drate) {
  vec part[in], keeps = {0}, rates = {0};
  memset(part, 0, sizeof part);
  for (int c = 0; c < out; c += LANES) {
    vec total = {0}, errors = {0}, error = load(e + c);
    for (int i = 0; i < in; i++) total += load(to + i * out + c) * load(G + i * out + c);
    total /= mass_of(rule, in);
    for (int i = 0; i < in; i++) {
      real *place = G + i * out + c;
      vec w = load(W + i * out + c), held = at_least(w, rule->weight_floor), slope = load(to + i * out + c) * (load(place) - total);
      keeps += slope * logarithm(held);
      errors += slope * a[i];
      part[i] += slope * error;
      store(place, choose(w < rule->weight_floor, (vec){0}, slope * keep / held));
    }
    rates += errors * error;
    store(de + c, load(de + c) + errors * rate);
  }
  for (int i = 0; i < in; i++) da[i] += rate * sum(part[i]);
  *dkeep += sum(keeps), *drate += sum(rates);
}
