/* Titans' memory of large layers, a piece of tokens at a time, with its backward pass: the law of `../native.c`, whose words and
   layouts these are, as products of matrices. Between the W and S before a piece and its token t, A being the anchored weights,

     S_t = p_t S + sum_{i<=t} s_ti a_i e_i^T        p_t = eta_t p_{t-1},   s_t = eta_t s_{t-1},   s_tt = theta_t
     W_t = c_t W + m_t S + sum_{i<=t} T_ti a_i e_i^T     c_t = keep_t c_{t-1},  m_t = keep_t m_{t-1} + p_t,  T_t = keep_t T_{t-1} + s_t
     y_t = W_t^T h_t = c_t W^T h_t + m_t S^T h_t + sum_{i<=t} T_ti (h_t . a_i) e_i

   a and e, of which A knows all, come first. EXCLUSIVE reads W_{t-1}: the row before of c, m and T.

   Built for REAL, DEPTH, K, H, V, GATES, SILU, EXCLUSIVE as there; LANES divides K, H and V; PIECE, a multiple of LANES, is the most
   tokens of a piece. None has an anchor inside, or, with NEAR (0 or 1) and one matrix, whole chunks (`native_near.h`).
   traces [batch, heads, time, TRACE]. */
#include "native_pieces.h"

/* Gradients of a piece's shares: of those that its tokens read with (of T: own->slopes), of those at its end (T, s, .._end), and of
   those before an anchor that its chunk is compared with (NEAR). */
typedef struct {
  real c[PIECE], m[PIECE], T[PIECE], s[PIECE], c_end, m_end, p_end;
  real near_c[NEAR ? PIECE : 1], near_m[NEAR ? PIECE : 1], near_T[NEAR ? PIECE * PIECE : 1];
} slopes;

#include "native_near.h"

static void read_head(const text *x, long n, long h, desk *own, real *y, real *traces, real *kept, real *state) {
  cuts c = cuts_of(x->chunk);
  real *now = own->apart, *A = own->G; /* a copy of the anchored weights, where pieces have one in common */
  memcpy(now, state, 2 * SIZE * sizeof(real));
  for (long piece = 0; piece < pieces(x->time, x->chunk); piece++) {
    long start = start_of(c, piece, x->time, x->chunk), count = stop_of(c, piece, x->time, x->chunk) - start;
    long place = (n * x->time + start) * x->heads + h;
    real *trace = traces ? traces + start * TRACE : own->traced;
    if (kept) memcpy(kept + piece * 2 * SIZE, now, 2 * SIZE * sizeof(real));
    if (start == x->last) memcpy(state, now, 2 * SIZE * sizeof(real));
    if (c.each > 1 && piece % c.each == 0) memcpy(A, now, SIZE * sizeof(real));
    own->state = now, own->A = c.each > 1 ? A : now;
    take(x, place, count, own);
    if (NEAR) compare_near(x, own, trace);
    else compare(own, trace);
    for (int l = 0; l < DEPTH; l++) {
      real *heard = trace + 2 * HIDDEN + l * H;
      read_layer(own, l, l < DEPTH - 1 ? heard : y + place * V, l < DEPTH - 1 ? TRACE : x->heads * V);
      if (l < DEPTH - 1) activate(heard, TRACE, own->h[l + 1], 0, 0, count);
    }
    for (int l = 0; l < DEPTH; l++) write_layer(own, l, now);
  }
  if (x->last == x->time) memcpy(state, now, 2 * SIZE * sizeof(real));
}

/* What a piece's key, error and read are, from its trace. */
static void recall(desk *own, const real *trace) {
  const long count = own->count;
  for (int l = 1; l < DEPTH; l++) {
    activate(trace + (l - 1) * H, TRACE, own->a[l], own->slope[l], own->bend[l], count);
    activate(trace + 2 * HIDDEN + (l - 1) * H, TRACE, own->h[l], own->heard[l], 0, count);
    for (long t = 0; t < count; t++)
      for (long j = 0; j < H; j += LANES)
        store(own->e[l - 1] + t * H + j, load(trace + t * TRACE + HIDDEN + (l - 1) * H + j) * load(own->slope[l] + t * H + j));
    memset(own->e[l - 1] + count * H, 0, (PIECE - count) * H * sizeof(real));
  }
  gather(trace + 3 * HIDDEN, TRACE, own->e[DEPTH - 1], V, count);
}

static void gates_back(const text *x, long place, int gate, const desk *own, const slopes *given, const gradients *d) {
  const shares *left = own->left + gate;
  real c = given->c_end, m = given->m_end, p = given->p_end, T[PIECE], s[PIECE];
  memcpy(T, given->T, sizeof T), memcpy(s, given->s, sizeof s);
  for (long t = own->count - 1; t >= 0; t--) {
    long at = (place + t * x->heads) * GATES + gate;
    real eta = x->momentum[at], keep = x->keep[at], of_eta, of_keep;
    const real *read = own->slopes + t * PIECE;
    if (!EXCLUSIVE) {
      c += given->c[t], m += given->m[t];
      for (long i = 0; i <= t; i++) T[i] += read[i];
    }
    p += m;
    for (long i = 0; i <= t; i++) s[i] += T[i];
    of_eta = p * (t ? left->p[t - 1] : 1), of_keep = c * (t ? left->c[t - 1] : 1) + m * (t ? left->m[t - 1] : 0);
    for (long i = 0; i < t; i++) {
      of_eta += s[i] * left->s[(t - 1) * PIECE + i], of_keep += T[i] * left->T[(t - 1) * PIECE + i];
      s[i] *= eta, T[i] *= keep;
    }
    d->rate[at] += s[t], d->momentum[at] += of_eta, d->keep[at] += of_keep;
    c *= keep, m *= keep, p *= eta;
    if (EXCLUSIVE) {
      c += given->c[t], m += given->m[t];
      for (long i = 0; i < t; i++) T[i] += read[i];
    }
    if (NEAR && t % x->chunk == 0) {
      c += given->near_c[t], m += given->near_m[t];
      for (long i = 0; i < t; i++) T[i] += given->near_T[t * PIECE + i];
    }
  }
}

/* Back over one layer's read, whose gradient is `dy`: fills dh, and begins de with what its writes were read by. */
static void read_back(desk *own, int l, slopes *given) {
  const long count = own->count;
  const shares *left = own->left + GATE(l);
  const real *W = own->state + AT(l), *S = W + SIZE;
  find_scores(own, own->h[l], l);
  transpose(own->e[l], OUT(l), own->turned, PIECE, UP(count), OUT(l));
  product(own->dy, OUT(l), 1, own->turned, PIECE, OUT(l), 0, 1, own->slopes, PIECE, count, UP(count));
  for (long t = 0; t < count; t++)
    for (long i = 0; i < PIECE; i++) { /* scores become what was multiplied with e, slopes the gradient of the share of it */
      real T = T_of(left, t, i), score = own->scores[t * PIECE + i], slope = own->slopes[t * PIECE + i];
      own->scores[t * PIECE + i] = slope * T;
      own->slopes[t * PIECE + i] = slope * score;
      own->other[t * PIECE + i] = score * T;
    }
  product(own->other, 1, PIECE, own->dy, OUT(l), count, 0, 1, own->de[l], OUT(l), count, OUT(l));
  product(own->scores, PIECE, 1, own->a[l], IN(l), count, 0, 1, own->dh, IN(l), count, IN(l));
  for (int part = 0; part < 2; part++) {
    through(own, part ? S : W, own->dy, own->one, IN(l), OUT(l));
    for (long t = 0; t < count; t++) {
      real by = part ? m_of(left, t) : c_of(left, t), *to = part ? given->m : given->c;
      to[t] = dot(own->one + t * IN(l), own->h[l] + t * IN(l), IN(l));
      for (long j = t * IN(l); j < (t + 1) * IN(l); j += LANES) store(own->dh + j, load(own->dh + j) + load(own->one + j) * by);
    }
  }
}

/* Back over one layer's writes: to a and e, and to the shares at the end of the piece. */
static void write_back(desk *own, int l, slopes *given) {
  const long count = own->count, end = count - 1;
  const shares *left = own->left + GATE(l);
  for (int part = 0; part < 2; part++) {
    const real *G = own->G + AT(l) + part * SIZE, *share = (part ? left->s : left->T) + end * PIECE;
    real *to = part ? given->s : given->T;
    product(own->a[l], IN(l), 1, G, OUT(l), IN(l), 0, 1, own->one, OUT(l), count, OUT(l));
    for (long i = 0; i < count; i++) to[i] = dot(own->one + i * OUT(l), own->e[l] + i * OUT(l), OUT(l));
    scale(own->de[l], own->one, share, OUT(l), count, 1);
    scale(own->one, own->e[l], share, OUT(l), count, 0);
    memset(own->one + count * OUT(l), 0, (UP(count) - count) * OUT(l) * sizeof(real));
    transpose(own->one, OUT(l), own->turned, PIECE, UP(count), OUT(l));
    product(G, OUT(l), 1, own->turned, PIECE, OUT(l), part ? own->result : 0, 1, own->result, PIECE, IN(l), UP(count));
  }
  transpose(own->result, PIECE, own->da[l], IN(l), IN(l), UP(count));
  product(own->scores, 1, PIECE, own->h[l], IN(l), count, own->da[l], 1, own->da[l], IN(l), count, IN(l));
}

/* G from behind the piece to before it, and what it gives the shares of the state. */
static void state_back(desk *own, int l, slopes *given) {
  const long count = own->count, end = count - 1;
  const shares *left = own->left + GATE(l);
  const real *W = own->state + AT(l), *S = W + SIZE, c = left->c[end], m = left->m[end], p = left->p[end];
  real *GW = own->G + AT(l), *GS = GW + SIZE, by[PIECE];
  vec of_c = {0}, of_m = {0}, of_p = {0};
  for (long j = 0; j < IN(l) * OUT(l); j += LANES) {
    vec w = load(GW + j), s = load(GS + j), before = load(S + j);
    of_c += load(W + j) * w, of_m += before * w, of_p += before * s;
    store(GS + j, s * p + w * m);
  }
  given->c_end = sum(of_c), given->m_end = sum(of_m), given->p_end = sum(of_p);
  for (long t = 0; t < count; t++) by[t] = m_of(left, t);
  scale(own->one, own->dy, by, OUT(l), count, 0);
  product(own->h[l], 1, IN(l), own->one, OUT(l), count, GS, 1, GS, OUT(l), IN(l), OUT(l));
  for (long t = 0; t < count; t++) by[t] = c_of(left, t);
  scale(own->one, own->dy, by, OUT(l), count, 0);
  product(own->h[l], 1, IN(l), own->one, OUT(l), count, GW, c, GW, OUT(l), IN(l), OUT(l));
}

/* Back over `compare`; da, de hold what reads and writes gave. GA gets the anchored weights' gradient, da[0] the key's. */
static void compare_back(desk *own, const real *trace) {
  const long count = own->count;
  const real *A = own->A;
  for (int l = 1; l < DEPTH; l++) { /* e_{l-1} = (A_l e_l) o slope; dy gets the slope of A_l e_l, heard that of z_{l-1} */
    for (long t = 0; t < count; t++)
      for (long j = 0; j < H; j += LANES) {
        vec de = load(own->de[l - 1] + t * H + j), raised = load(trace + t * TRACE + HIDDEN + (l - 1) * H + j);
        store(own->heard[l] + t * H + j, de * raised * load(own->bend[l] + t * H + j));
        store(own->dy + t * H + j, de * load(own->slope[l] + t * H + j));
      }
    product(own->dy, H, 1, A + AT(l), OUT(l), H, own->de[l], 1, own->de[l], OUT(l), count, OUT(l));
    product(own->dy, 1, H, own->e[l], OUT(l), count, own->GA + AT(l), 1, own->GA + AT(l), OUT(l), H, OUT(l));
  }
  for (int l = DEPTH - 1; l >= 0; l--) {
    real *dz = l < DEPTH - 1 ? own->heard[l + 1] : own->dy;
    if (l == DEPTH - 1)
      for (long j = 0; j < count * V; j += LANES) store(dz + j, -load(own->de[l] + j));
    product(own->a[l], 1, IN(l), dz, OUT(l), count, own->GA + AT(l), 1, own->GA + AT(l), OUT(l), IN(l), OUT(l));
    through(own, A + AT(l), dz, own->one, IN(l), OUT(l));
    for (long j = 0; j < count * IN(l); j += LANES) store(own->da[l] + j, load(own->da[l] + j) + load(own->one + j));
    if (l)
      for (long j = 0; j < count * H; j += LANES)
        store(own->heard[l] + j, load(own->heard[l] + j) + load(own->da[l] + j) * load(own->slope[l] + j));
  }
}

static void piece_back(const text *x, long place, desk *own, const real *trace, const real *dy, const gradients *d) {
  const long count = own->count;
  gather(dy + place * V, x->heads * V, own->dy, V, count);
  for (long t = 0; t < count; t++)
    for (int g = 0; g < GATES; g++) {
      long at = (place + t * x->heads) * GATES + g;
      d->momentum[at] = d->rate[at] = d->keep[at] = 0;
    }
  for (int l = DEPTH - 1; l >= 0; l--) {
    slopes given;
    memset(&given, 0, sizeof given);
    read_back(own, l, &given);
    write_back(own, l, &given);
    if (NEAR) near_back(x, own, &given);
    state_back(own, l, &given);
    if (NEAR) near_state_back(x, own);
    gates_back(x, place, GATE(l), own, &given, d);
    for (long j = 0; l && j < count * H; j += LANES) store(own->dy + j, load(own->dh + j) * load(own->heard[l] + j));
  }
  scatter(own->dh, K, d->q + place * K, x->heads * K, count);
  if (!NEAR) compare_back(own, trace);
  scatter(own->da[0], K, d->k + place * K, x->heads * K, count);
  scatter(own->de[DEPTH - 1], V, d->v + place * V, x->heads * V, count);
}

static void head_back(const text *x, long n, long h, desk *own, const real *traces, const real *kept, const real *dy, real *change,
                      const gradients *d) {
  cuts c = cuts_of(x->chunk);
  own->GA = c.each > 1 ? own->apart : own->G;
  memset(own->G, 0, sizeof own->G), memset(own->apart, 0, sizeof own->apart);
  for (long piece = pieces(x->time, x->chunk) - 1; piece >= 0; piece--) {
    long start = start_of(c, piece, x->time, x->chunk), stop = stop_of(c, piece, x->time, x->chunk);
    long place = (n * x->time + start) * x->heads + h;
    if (stop == x->last)
      for (long j = 0; j < 2 * SIZE; j++) own->G[j] += change[j];
    own->state = kept + piece * 2 * SIZE, own->A = kept + piece / c.each * c.each * 2 * SIZE;
    take(x, place, stop - start, own);
    recall(own, traces + start * TRACE);
    piece_back(x, place, own, traces + start * TRACE, dy, d);
    if (c.each > 1 && piece % c.each == 0) { /* the anchor stands before it */
      for (long j = 0; j < SIZE; j++) own->G[j] += own->GA[j];
      memset(own->GA, 0, SIZE * sizeof(real));
    }
  }
  for (long j = 0; j < 2 * SIZE; j++) change[j] = own->G[j] + (x->last ? 0 : change[j]);
}

static desk *room(void) {
  desk *own = aligned_alloc(64, (sizeof(desk) + 63) / 64 * 64);
  memset(own, 0, sizeof *own); /* rows behind a piece's tokens are turned too */
  return own;
}

/* Heads of all rows, shared among the threads. */
#define EACH_HEAD(n, h)                                                  \
  _Pragma("omp for collapse(2) schedule(static)") for (long n = 0; n < x->batch; n++) \
    for (long h = 0; h < x->heads; h++)

/* state: the first one on entry, that before token `last` on return; traces and kept may be NULL. */
void forward(const text *x, real *state, real *y, real *traces, real *kept, int threads) {
  long count = pieces(x->time, x->chunk);
#pragma omp parallel num_threads(threads)
  {
    desk *own = room();
    EACH_HEAD(n, h) {
      long head = n * x->heads + h;
      read_head(x, n, h, own, y, traces ? traces + head * x->time * TRACE : 0, kept ? kept + head * count * 2 * SIZE : 0,
                state + head * 2 * SIZE);
    }
    free(own);
  }
}

/* change: the gradient of the state that was handed out on entry, of the first one on return. */
void backward(const text *x, const real *traces, const real *kept, const real *dy, real *change, const gradients *d, int threads) {
  long count = pieces(x->time, x->chunk);
#pragma omp parallel num_threads(threads)
  {
    desk *own = room();
    EACH_HEAD(n, h) {
      long head = n * x->heads + h;
      head_back(x, n, h, own, traces + head * x->time * TRACE, kept + head * count * 2 * SIZE, dy, change + head * 2 * SIZE, d);
    }
    free(own);
  }
}
