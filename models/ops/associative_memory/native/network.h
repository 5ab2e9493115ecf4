/* The network of a memory, for the tokens of a chunk at once: its layers' inputs, its errors, their derivatives.

     z_l = s_l x_l W_l,  x_0 = k, x_{l+1} = act(z_l), with a 1 behind it if BIAS      u_l = s_{l+1} e_{l+1} W_{l+1}^T, e_l = u_l o act'(z_l)
     e_L = b(aim - gain z), or LN's backward of b(aim - gain LN(z)) with RESIDUAL     s_l: 1, or with SCALED what norms the weights

   A layer's weights are W [WIDE(l), OUT(l)]: its inputs' rows, the bias's, and zeros up to a multiple of LANES. */
#define IN(l) ((l) ? H : K)
#define OUT(l) ((l) == DEPTH - 1 ? V : H)
#define ROWS(l) (IN(l) + BIAS)
#define WIDE(l) UP(ROWS(l))
#define AT(l) ((l) ? WIDE(0) * H + ((l)-1) * WIDE(1) * H : 0)
#define SIZE (DEPTH == 1 ? WIDE(0) * V : WIDE(0) * H + (DEPTH - 2) * WIDE(1) * H + WIDE(1) * V)
#define WIDEST(l) (WIDE(l) > OUT(l) ? WIDE(l) : OUT(l))
#define LAYERS(l) for (int l = 0; l < DEPTH; l++)
#define LAYERS_BACK(l) for (int l = DEPTH - 1; l >= 0; l--)

typedef struct {
  vec value, slope, bend;
} activated;

/* An activation with its first and second derivative. */
static inline activated activation(vec z) {
  if (ACTIVATION == 1) { /* silu */
    vec s = sigmoid(z), fall = s * (1 - s);
    return (activated){z * s, s + z * fall, fall * (2 + z * (1 - 2 * s))};
  }
  if (ACTIVATION == 2) { /* gelu by tanh: T = tanh(r (z + c z^3)), p its argument's derivative */
    const real root = 0.7978845608028654, cubic = 0.044715;
    vec square = z * z, t = tanh_of(z * (square * (root * cubic) + root)), p = square * (3 * root * cubic) + root, rest = 1 - t * t;
    return (activated){z * (1 + t) * (real)0.5, (1 + t + z * rest * p) * (real)0.5,
                       rest * (square * (6 * root * cubic) + root - z * t * p * p)};
  }
  vec bell = exp_of_negative(z * z * (real)-0.5), below = normal_below(z, bell), density = bell * (real)0.3989422804014327;
  return (activated){z * below, below + z * density, density * (2 - z * z)};
}

/* What a chunk's keys make of the layers. Of each layer: inputs x [UP(rows), WIDE], errors e [UP(rows), OUT]; of a hidden one also
   act', act'' and u, [rows, H]. Outputs z before an activation are kept with SCALED alone. */
typedef struct {
  real *x[DEPTH], *e[DEPTH], *slope[DEPTH], *bend[DEPTH], *u[DEPTH], *z[DEPTH], *normed, *inverse;
} network;

/* Lays a network of `rows` tokens out from a place on, and returns the place behind it. */
static real *lay_network(network *net, real *place, long rows) {
  LAYERS(l) {
    net->x[l] = place, place += UP(rows) * WIDE(l);
    net->e[l] = place, place += UP(rows) * OUT(l);
    net->z[l] = place, place += SCALED ? rows * OUT(l) : 0;
    if (l < DEPTH - 1) {
      net->slope[l] = place, place += rows * H;
      net->bend[l] = place, place += rows * H;
      net->u[l] = place, place += rows * H;
    }
  }
  net->normed = place, place += rows * V;
  net->inverse = place, place += rows;
  return place;
}

/* Rows [rows, count] of a text, each `apart` from the next, as a layer's inputs: with a 1 if BIAS, and zeros around. */
static void enter_rows(const real *from, long apart, real *to, long rows, int count, int wide) {
  memset(to, 0, UP(rows) * wide * sizeof(real));
  for (long i = 0; i < rows; i++) {
    memcpy(to + i * wide, from + i * apart, count * sizeof(real));
    if (BIAS) to[i * wide + count] = 1;
  }
}

/* act(z [rows, H]) as the next layer's inputs, and the derivatives where they are wanted. */
static void activate(const real *z, real *to, real *slope, real *bend, long rows) {
  memset(to, 0, UP(rows) * WIDE(1) * sizeof(real));
  for (long i = 0; i < rows; i++) {
    for (int j = 0; j < H; j += LANES) {
      activated a = activation(load(z + i * H + j));
      store(to + i * WIDE(1) + j, a.value), store(slope + i * H + j, a.slope);
      if (bend) store(bend + i * H + j, a.bend);
    }
    if (BIAS) to[i * WIDE(1) + H] = 1;
  }
}

static inline void scale_rows(real *x, long count, real scale) {
  for (long i = 0; i < count; i++) x[i] *= scale;
}

/* The keys in net->x[0] through the weights W, scaled by s a layer, and their errors back. `turned` has room for a layer. */
static void compare(const real *W, const real *s, const real *aim, long apart, const real *threshold, long gates, const real *gain,
                    const law *rule, long rows, network *net, real *turned) {
  real *z = turned; /* free until errors go back, and larger than any output of DEPTH layers needs */
  LAYERS(l) {
    product(net->x[l], WIDE(l), 1, W + AT(l), OUT(l), ROWS(l), 0, 0, z, OUT(l), rows, OUT(l));
    if (SCALED) scale_rows(z, rows * OUT(l), s[l]), memcpy(net->z[l], z, rows * OUT(l) * sizeof(real));
    if (l < DEPTH - 1) activate(z, net->x[l + 1], net->slope[l], net->bend[l], rows);
  }
  memset(net->e[DEPTH - 1], 0, UP(rows) * V * sizeof(real));
  for (long i = 0; i < rows; i++)
    net->inverse[i] = error(z + i * V, aim + i * apart, gain, threshold ? threshold[i * gates] : 0, rule, net->normed + i * V,
                            net->e[DEPTH - 1] + i * V);
  for (int l = DEPTH - 1; l > 0; l--) {
    transpose(W + AT(l), OUT(l), turned, WIDE(l), WIDE(l), OUT(l));
    product(net->e[l], OUT(l), 1, turned, WIDE(l), OUT(l), 0, 0, net->u[l - 1], H, rows, H);
    if (SCALED) scale_rows(net->u[l - 1], rows * H, s[l]);
    memset(net->e[l - 1], 0, UP(rows) * H * sizeof(real));
    for (long i = 0; i < rows * H; i += LANES) store(net->e[l - 1] + i, load(net->u[l - 1] + i) * load(net->slope[l - 1] + i));
  }
}

static inline real dot(const real *a, const real *b, long count) {
  vec part = {0};
  for (long i = 0; i < count; i += LANES) part += load(a + i) * load(b + i);
  return sum(part);
}

/* The gradients of a chunk's keys: of inputs dx [rows, WIDE] and of errors de [rows, OUT] a layer. */
typedef struct {
  real *dx[DEPTH], *de[DEPTH], *dz, *bent[DEPTH];
} slopes;

static real *lay_slopes(slopes *d, real *place, long rows) {
  LAYERS(l) {
    d->dx[l] = place, place += UP(rows) * WIDE(l);
    d->de[l] = place, place += UP(rows) * OUT(l);
    d->bent[l] = place, place += rows * OUT(l);
  }
  d->dz = place;
  return place + rows * (H > V ? H : V);
}

/* Back over `compare`: d holds what was made of inputs and errors, and dx[0] the keys' gradient on return; G [SIZE] gathers that of
   the weights, ds that of their scales. WT is W with every layer transposed. */
static void compare_back(const real *W, const real *WT, const real *s, const real *aim, long apart, const real *threshold, long gates,
                         const real *gain, const law *rule, long rows, const network *net, slopes *d, real *G, real *daim,
                         real *dthreshold, real *dgain, real *ds) {
  for (int l = 0; l < DEPTH - 1; l++) {
    real *du = d->dz;
    for (long i = 0; i < rows * H; i += LANES) {
      vec slope = load(d->de[l] + i);
      store(d->bent[l] + i, slope * load(net->u[l] + i) * load(net->bend[l] + i));
      store(du + i, slope * load(net->slope[l] + i));
    }
    if (SCALED) ds[l + 1] += dot(du, net->u[l], rows * H) / s[l + 1], scale_rows(du, rows * H, s[l + 1]);
    product(du, H, 1, W + AT(l + 1), OUT(l + 1), H, d->de[l + 1], 1, d->de[l + 1], OUT(l + 1), rows, OUT(l + 1));
    real *g = G + AT(l + 1);
    product(du, 1, H, net->e[l + 1], OUT(l + 1), rows, g, 1, g, OUT(l + 1), H, OUT(l + 1));
  }
  real *dz = d->dz;
  for (long i = 0; i < rows; i++)
    error_back(d->de[DEPTH - 1] + i * V, aim + i * apart, gain,
               threshold ? threshold[i * gates] : 0, rule, net->normed + i * V, net->inverse[i], net->e[DEPTH - 1] + i * V, dz + i * V,
               daim + i * apart, dthreshold ? dthreshold + i * gates : 0, dgain);
  LAYERS_BACK(l) {
    if (SCALED) ds[l] += dot(dz, net->z[l], rows * OUT(l)) / s[l], scale_rows(dz, rows * OUT(l), s[l]);
    real *g = G + AT(l);
    product(net->x[l], 1, WIDE(l), dz, OUT(l), rows, g, 1, g, OUT(l), ROWS(l), OUT(l));
    product(dz, OUT(l), 1, WT + AT(l), WIDE(l), OUT(l), d->dx[l], 1, d->dx[l], WIDE(l), rows, WIDE(l));
    if (l)
      for (long i = 0; i < rows; i++)
        for (int j = 0; j < H; j += LANES)
          store(dz + i * H + j, load(d->bent[l - 1] + i * H + j) + load(d->dx[l] + i * WIDE(l) + j) * load(net->slope[l - 1] + i * H + j));
  }
}
