/* A text in whole segments, what a pass over it makes and keeps, and a thread's own room. */

#define COLUMNS UP(3 * K + GATES * (MOMENTUM + 1 + FORGET)) /* of a token in a head: the memory's q, k, v, its gates' logits, zeros */
#define BLOCK 18 /* tokens whose scores are made together: three tiles high */
#define EPSILON ((real)1e-6)
#define HALF (K / 2)

typedef struct {
  long batch, time, heads, width, segment, chunk, pool, prefix;
  double ceiling; /* of the momentum */
  const real *x, *heard, *prefix_k, *prefix_v, *bias, *taps, *bound;
  const real *recall, *out, *update; /* maps, [to, from]; in the loops as `pack` puts them */
  const real *cosine, *sine; /* of the places of a segment, [segment, HALF] */
} context;

typedef struct {
  real *y, *attended;     /* [batch, time, width] and [batch, time, heads, K] */
  real *reads, *read_rms; /* what the memory answered after each token, of unit RMS, and one over what it had */
  real *recalled, *rms;   /* the same of the memory as it stood, [batch, time / pool, heads, K] */
  real *rows;             /* its keys and values, before their turn, [batch, time / pool, heads, 2 K] */
  real *made;             /* the maps of all tokens, behind the convolutions' tails, [batch, KERNEL - 1 + time, heads, COLUMNS] */
  real *traces, *kept;    /* of the memory, head by head, or NULL */
  real *state;            /* [batch, heads, 2 SIZE] */
} passed;

typedef struct {
  real *q, *keys, *values, *keys_turned, *values_turned, *scores; /* of one head's attention: q [segment, K], keys [UP(rows), K] */
  real *dy, *dq, *dkeys, *dvalues, *dscores;
  real *token[3], *active[3], *unit[3]; /* the memory's q, k, v; the activation's slopes; the norm's factor */
  real *momentum, *rate, *keep, *answer;
  real *dtoken[3], *dmomentum, *drate, *dkeep, *danswer, *dheard;
  real *single, *single_active, *single_unit, *asked, *asked_unit, *dasked; /* queries of tokens, and of rows, [.., K] */
  real *hidden[DEPTH], *slope[DEPTH], *down, *up, *turned; /* of reading fixed weights */
  real *anchor;                                            /* the memory's weights at its last anchor */
  desk *memory;
} room;

static inline long rows_of(const context *x) { return x->prefix + x->segment + x->segment / x->pool; }

/* Rows of P, h and S lie in the order in which tokens come to see them: token t sees the first `seen`. */
static inline long seen_by(const context *x, long t) { return x->prefix + t + 1 + (t + 1) / x->pool; }
static inline long row_of_token(const context *x, long t) { return x->prefix + t + t / x->pool; }
static inline long row_of_recalled(const context *x, long r) { return x->prefix + (r + 1) * x->pool + r; }

/* Where the `wide` numbers lie that a head has of a token, in rows of `time` tokens. */
static inline long spot(const context *x, long n, long time, long t, long h, long wide) {
  return ((n * time + t) * x->heads + h) * wide;
}

/* The columns of y that are a head's work: whole vectors, nearly as many as any other's. */
static inline long columns_before(const context *x, long h) { return x->width / LANES * h / x->heads * LANES; }

enum { ASKED, QUERY, KEY, VALUE }; /* parts of what was heard of a token: what is asked of the memory, and attention's q, k, v */

static inline long spot_of(const context *x, long n, long t, int part, long h) {
  return (((n * x->time + t) * 4 + part) * x->heads + h) * K;
}

#define PLACE(pointer, count) ((pointer) = from ? from + at : 0, at += UP(count))

/* Gives a room its places behind `from`, or NULL; returns how many numbers they take. */
static long furnish(room *own, real *from, const context *x) {
  long at = 0, s = x->segment, all = UP(rows_of(x)), widest = H > K ? H : K;
  PLACE(own->q, s * K), PLACE(own->dq, s * K), PLACE(own->answer, s * K), PLACE(own->danswer, s * K), PLACE(own->dy, s * K);
  PLACE(own->keys, all * K), PLACE(own->values, all * K), PLACE(own->keys_turned, all * K), PLACE(own->values_turned, all * K);
  PLACE(own->dkeys, all * K), PLACE(own->dvalues, all * K), PLACE(own->scores, BLOCK * all), PLACE(own->dscores, BLOCK * all);
  for (int i = 0; i < 3; i++) {
    PLACE(own->token[i], s * K), PLACE(own->active[i], s * K), PLACE(own->dtoken[i], s * K), PLACE(own->unit[i], s);
  }
  PLACE(own->single, s * K), PLACE(own->single_active, s * K), PLACE(own->single_unit, s);
  PLACE(own->asked, s * K), PLACE(own->dasked, s * K), PLACE(own->asked_unit, s);
  PLACE(own->momentum, s * GATES), PLACE(own->rate, s * GATES), PLACE(own->keep, s * GATES);
  PLACE(own->dmomentum, s * GATES), PLACE(own->drate, s * GATES), PLACE(own->dkeep, s * GATES), PLACE(own->dheard, s * 3 * K);
  for (int l = 0; l < DEPTH; l++) PLACE(own->hidden[l], s * widest), PLACE(own->slope[l], s * widest);
  PLACE(own->down, s * widest), PLACE(own->up, s * widest), PLACE(own->turned, widest * widest), PLACE(own->anchor, SIZE);
  return at;
}

static room room_of(const context *x, int back) {
  room own = {0};
  long bytes = (furnish(&own, 0, x) * sizeof(real) + 63) / 64 * 64;
  real *from = aligned_alloc(64, bytes);
  memset(from, 0, bytes); /* rows that fill up a tile stay zeros */
  furnish(&own, from, x);
  own.memory = back ? calloc(1, sizeof(desk)) : 0;
  return own;
}

static void leave(room *own) { free(own->q), free(own->memory); } /* q is what lies first */
