/* What stands between the layers of a memory, with its first two derivatives; include native.h before it. SILU: 0 gelu, 1 silu. */
typedef struct {
  vec value, slope, bend;
} activated;

static inline activated activation(vec z) {
  if (SILU) {
    vec s = sigmoid(z), fall = s * (1 - s);
    return (activated){z * s, s + z * fall, fall * (2 + z * (1 - 2 * s))};
  }
  vec bell = exp_of_negative(z * z * (real)-0.5), below = normal_below(z, bell), density = bell * (real)0.3989422804014327;
  return (activated){z * below, below + z * density, density * (2 - z * z)};
}
