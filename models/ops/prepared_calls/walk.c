/* Calls that were prepared, made one after another. Every argument is read where it lies, since it may be another each time.

   A call is given all places for whole numbers (and pointers) and for doubles, of which a function takes the first ones: the
   calling conventions of 64-bit Linux and macOS on x86 and of Linux on ARM hand both on apart, in the order of each, and leave
   it to the caller to clear away. `probe` finds out whether that is so here. */
typedef void (*function)(long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long,
                         double, double);
struct call {
  function run;
  const long *whole[16];
  const double *real[2];
};

void walk(const struct call *calls, long count) {
  for (const struct call *one = calls; one < calls + count; one++) {
    const long *const *n = one->whole;
    one->run(*n[0], *n[1], *n[2], *n[3], *n[4], *n[5], *n[6], *n[7], *n[8], *n[9], *n[10], *n[11], *n[12], *n[13], *n[14],
             *n[15], *one->real[0], *one->real[1]);
  }
}

/* Where a number lies that is to be what another one is, and so much more. */
struct move {
  long *to;
  const long *from;
  long more;
};

void move(const struct move *moves, long count) {
  for (const struct move *one = moves; one < moves + count; one++) *one->to = *one->from + one->more;
}

static double heard;

/* Remembers what arrives, each argument with a weight of its own. */
void probe(int a, double b, const void *c, long d, int e, long f, int g, const void *h, double i, int j, int k, long l) {
  double whole[] = {a, (double)(long)c, d, e, f, g, (double)(long)h, j, k, l}, sum = 0;
  for (int n = 0; n < 10; n++) sum = 3 * sum + whole[n];
  heard = sum + b / 4 + i / 8;
}

void said(double *to) { *to = heard; }
