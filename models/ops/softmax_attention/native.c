/* Softmax attention of one token: y = sum_j softmax_j(scale q . k_j) v_j over keys that lie in several places.

   REAL float or double; D numbers a head; LANES a divisor of D.
   Layouts: q, y [batch, heads, D]; keys and values of a part [batch or 1, count, heads, D]. */
#include "../native.h"

#define COLUMNS (D / LANES)

typedef struct {
  const real *q, *k, *v; /* a part has a query of its own: keys with places are asked by one that has one */
  long count, apart;     /* apart: how far the keys of one row of the batch lie from the next one's */
} part;

static real score_part(const part *p, long n, long h, long heads, real scale, real *scores, real most) {
  const real *q = p->q + (n * heads + h) * D;
  for (long j = 0; j < p->count; j++) {
    const real *k = p->k + n * p->apart + (j * heads + h) * D;
    vec found = {0};
    for (int c = 0; c < COLUMNS; c++) found += load(q + c * LANES) * load(k + c * LANES);
    scores[j] = sum(found) * scale;
    most = scores[j] > most ? scores[j] : most;
  }
  return most;
}

static real read_part(const part *p, long n, long h, long heads, const real *scores, real most, vec y[COLUMNS]) {
  real total = 0;
  for (long j = 0; j < p->count; j += LANES) {
    long left = p->count - j < LANES ? p->count - j : LANES;
    vec share = {0};
    memcpy(&share, scores + j, left * sizeof(real));
    share = exp_of_negative(share - most);
    for (long i = 0; i < left; i++) {
      const real *v = p->v + n * p->apart + ((j + i) * heads + h) * D;
      total += share[i];
      for (int c = 0; c < COLUMNS; c++) y[c] += load(v + c * LANES) * share[i];
    }
  }
  return total;
}

/* room: for the scores of all parts, of each row and head */
void attend(const part *parts, long count, real *y, real *room, long batch, long heads, double scale, int threads) {
  long all = 0;
  for (long p = 0; p < count; p++) all += parts[p].count;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (threads > 1 && batch * heads * all > 4096)
  for (long n = 0; n < batch; n++)
    for (long h = 0; h < heads; h++) {
      real *scores = room + (n * heads + h) * all, most = -INFINITY, total = 0;
      vec out[COLUMNS] = {{0}};
      for (long p = 0, at = 0; p < count; at += parts[p++].count) most = score_part(parts + p, n, h, heads, scale, scores + at, most);
      for (long p = 0, at = 0; p < count; at += parts[p++].count) total += read_part(parts + p, n, h, heads, scores + at, most, out);
      for (int c = 0; c < COLUMNS; c++) store(y + (n * heads + h) * D + c * LANES, out[c] / total);
    }
}
