// Where the numbers of a group of networks stand, and what a call is given.
#pragma once
#include "arithmetic.h"
#include "random.h"

// ---- a number of one network, s in memory and v in lanes, at element j of an array ----

#if WIDE
typedef real s;                 // lanes are outputs: NL neighbouring elements make a v
constexpr int NL = VECTOR, NETWORKS = 1;
FN v get(const s *p, int j) { return all<v>(p[j]); }
FN v read(const s *p, int j) { return load<v>(p + j); }
FN void write(s *p, int j, v x) { store<v>(p + j, x); }
#else
typedef v s;                    // lanes are networks
constexpr int NL = 1, NETWORKS = VECTOR * PARTS;
FN v get(const s *p, int j) { return p[j]; }
FN v read(const s *p, int j) { return p[j]; }
FN void write(s *p, int j, v x) { p[j] = x; }
#endif

constexpr int DOUBLES = NETWORKS == 1 ? 1 : least(NETWORKS, most(1, VECTOR * (int)sizeof(real) / 8));  // in a register

constexpr int pad(int width) { return cdiv(width, NL) * NL; }
// Elements from a row of a matrix to the next. A column of rows that lie 1 KB apart, or a multiple, fits in few
// lines of a cache only: 64 outputs with lanes as networks lost up to a quarter of the rate. On a GPU, rows of a
// block that lie an odd number apart meet each of the 32 banks of its shared memory once; a thread's are in registers.
constexpr int line(int width) {
  if (THREADS) return TEAM ? width | 1 : width;
  return pad(width) + (pad(width) * sizeof(s) % 1024 ? 0 : NL);
}

// ---- where everything stands ----

enum Bias { NEURON, LAYER, NONE };
constexpr int L = LAYERS, OUTPUTS = WIDTH[L];
constexpr int bias_size(int l) { return BIAS == NEURON ? WIDTH[l + 1] : BIAS == LAYER ? 1 : 0; }
constexpr int row_of(int l) {  // of layer l in a row of parameters, as spec.layout has it
  int n = 0;
  for (int k = 0; k < l; k++) n += WIDTH[k] * WIDTH[k + 1] + bias_size(k);
  return n;
}
constexpr int weight_of(int l) {  // and here, with every row of a weight padded
  int n = 0;
  for (int k = 0; k < l; k++) n += WIDTH[k] * line(WIDTH[k + 1]) + pad(bias_size(k));
  return n;
}
constexpr int bias_of(int l) { return weight_of(l) + WIDTH[l] * line(WIDTH[l + 1]); }
constexpr bool is_weight(int at) {
  for (int l = 0; l < LAYERS; l++)
    if (at < bias_of(l) + pad(bias_size(l))) return at < bias_of(l);
  return false;
}
constexpr int outs_of(int l) {  // the outs of layer l, CHUNK samples
  int n = 0;
  for (int k = 0; k < l; k++) n += CHUNK * line(WIDTH[k + 1]);
  return n;
}
constexpr int widest() {
  int n = 0;
  for (int l = 0; l < L; l++) n = most(n, line(WIDTH[l + 1]));
  return n;
}
constexpr int turned_size() {
  int n = 0;
  for (int l = 1; l < L; l++) n = most(n, line(WIDTH[l]) * WIDTH[l + 1]);
  return n;
}

constexpr int P = weight_of(L), ACTS = outs_of(L);
constexpr int64_t REACH = 0x7fffffff;  // of an index: engines/cpu.py refuses what is larger
static_assert((int64_t)most(1 + SLOTS, NETWORKS) * P < REACH, "a row and its slots are beyond the reach of an index");
static_assert((int64_t)CHUNK * NETWORKS * most(widest(), line(WIDTH[0])) < REACH &&
              (int64_t)BATCH * most(widest(), NETWORKS) < REACH, "a batch is beyond the reach of an index");
constexpr bool APART = OWN && !WIDE && NETWORKS > 1;  // lanes with samples of their own,
constexpr bool GATHER = APART || (THREADS && TEAM);   // copied side by side, or into a GPU's shared memory
constexpr int NEXT_ROW = THREADS && !TEAM ? 0 : row_of(L);  // in Job; a GPU's thread is shown its own row alone
constexpr bool CHUNKED = CHUNK < BATCH, KEEP_GRAD = CHUNKED || CLIP_NORM >= 0, WEIGHTED = SAMPLE_WEIGHT || CLASS_WEIGHT;
constexpr int TARGETS = CLASSES ? 1 : OUTPUTS, INDEXED = APART ? NETWORKS : 1;
constexpr bool LEARNS = TASK == TRAIN;

// What an evaluation adds up (show.h): partial sums, of which some are of every output.
enum Metric { R2, CLASS, SIGN };
constexpr int WAYS = 8, R2_SUMS = METRIC != R2 ? 0 : OUTPUTS * most(1, WAYS / OUTPUTS);
constexpr int SUMS = WAYS * (1 + (METRIC != R2) + WEIGHTED + (SAMPLE_WEIGHT > 0)) + R2_SUMS;

// The numbers of a group, one after the other, each array a whole number of v.
struct Memory {
  s *row;       // (1 + SLOTS, P): parameters, then slots
#if !NEAR
  s *slots;     // (SLOTS, P), elsewhere: in a GPU's global memory
#endif
  s *grad;      // (P)
  s *x, *y;     // (CHUNK, I), (CHUNK, TARGETS): gathered samples
  s *nets, *outs, *belows, *masks;  // (CHUNK, O) per layer
  s *delta, *below;                 // (CHUNK, widest)
  s *turned;    // a weight with lanes along its inputs
  s *sums;      // (widest): of columns
  s *bias_sums; // (L, widest): of deltas, where one bias serves a layer and the batch comes in chunks
  s *error, *share, *hits;          // (BATCH)
  s *class_weight;                  // (OUTPUTS)
};

// Place them, one after the other -> how many elements; on a GPU from Nowhere on, to count them for the compiler.
#if THREADS
struct Nowhere {
  constexpr s *operator+(int64_t) const { return nullptr; }
};
template <class Base>
FN constexpr int64_t layout(Memory &m, Base base) {
#else
FN int64_t layout(Memory &m, s *base) {
#endif
  int64_t at = 0;
  auto take = [&](int64_t size) {
    s *p = base + at;
    at += (size + VECTOR - 1) / VECTOR * VECTOR;
    return p;
  };
  m.row = take((int64_t)(NEAR ? 1 + SLOTS : 1) * P);
  m.grad = take(KEEP_GRAD ? P : 0);
  m.x = take(GATHER ? CHUNK * line(WIDTH[0]) : 0);
  m.y = take(GATHER ? CHUNK * TARGETS : 0);
  m.outs = take(ACTS);
  m.nets = take(KEEP_NETS ? ACTS : 0);
  m.belows = take(DROPOUT >= 0 ? ACTS : 0);
  m.masks = take(DROPOUT >= 0 ? ACTS : 0);
  m.delta = take(LEARNS ? CHUNK * widest() : 0);
  m.below = take(LEARNS ? CHUNK * widest() : 0);
  m.turned = take(LEARNS && NL > 1 ? turned_size() : 0);
  m.sums = take(LEARNS ? widest() : 0);
  m.bias_sums = take(CHUNKED && BIAS == LAYER ? L * widest() : 0);
  m.error = take(BATCH);
  m.share = take(LEARNS && WEIGHTED ? BATCH : 0);
  m.hits = take(TASK == EVALUATE && METRIC != R2 ? BATCH : 0);
  m.class_weight = take(CLASS_WEIGHT ? OUTPUTS : 0);
  return at;
}

// The parameters of a group, or a slot of theirs, from 1; and where one of their numbers is, as read() and write()
// want it.
#if NEAR
FN s *numbers_of(const Memory &m, int slot) { return m.row + slot * P; }
#define NUMBER(m, slot, at) (m).row, (slot) * P + (at)
#else
FN s *numbers_of(const Memory &m, int slot) { return slot ? m.slots + (slot - 1) * P : m.row; }
#define NUMBER(m, slot, at) numbers_of(m, slot), at
#endif

// What a call of the engine is given; the arrays are TrainState's and Dataset's, N networks and M samples.
struct Job {
  real *params, *slots[SLOTS + 1];                      // (N, row_of(L))
  const double *hyper[HYPERS + 1];                      // (N)
  double *columns[COLUMNS + 1];                         // (N)
  const double *class_weight;                           // (N, O)
  const int64_t *ids, *position, *limit, *end;          // (N)
  int64_t *step;                                        // (N)
  const int8_t *status;                                 // (N)
  real *loss;                                           // (N)
  double *total;                                        // (N)
  const real *inputs;                                   // (M, I) or (N, M, I)
  const real *targets;                                  // (M, O) or (N, M, O)
  const int64_t *classes;                               // (M) or (N, M)
  const real *weights;                                  // (M) or (N, M)
  const double *spread;                                 // (1, O) or (N, O): Dataset.spread
  const int64_t *rows, *sizes;                          // (N, longest), (N)
  int64_t count, samples, longest, seed, steps, threads, check;
  int64_t *taken;  // (N): -t where a number was not finite after step t; with `check` steps taken elsewhere
  real *outs;       // (N, M, O): of predict
  double *figures;  // (2, N): loss and metric, of evaluate
};

// The steps of this call that a network takes.
FN int64_t left_of(const Job &job, int64_t n) {
  int64_t left = job.status[n] == 0 ? job.limit[n] - job.step[n] : 0;
  return left < 0 ? 0 : left < job.steps ? left : job.steps;
}

// What the networks of a group are besides their numbers.
struct alignas(64) Group {
  double hyper[HYPERS + 1][NETWORKS], columns[COLUMNS + 1][NETWORKS], now[NETWORKS], end[NETWORKS];
  real typed[HYPERS + 1][NETWORKS], rate[most(RATES, 1)][NETWORKS];
  bool alike;                              // in hyper, columns, now and end: of the latter three the first is kept up
  uint32_t id[NETWORKS], step[NETWORKS];
  int64_t base[NETWORKS], rows[NETWORKS];  // where a network's own samples, and its row of Job.rows, begin
  int32_t index[BATCH][INDEXED];           // the samples of this step
#if TASK != TRAIN
  int64_t size[NETWORKS];                  // how many samples a network has
#endif
#if TASK == EVALUATE
  double sums[SUMS][NETWORKS];
#endif
};

// A number of each network, as v.
FN v spread(const real (&x)[NETWORKS]) { return WIDE ? all<v>(x[0]) : load<v>(x); }

// The networks of a group, by their rows; most often neighbours, whose numbers are moved by whole vectors.
struct Who {
  const int64_t *rows;
  bool neighbours;
  inline __attribute__((always_inline)) int64_t operator[](int n) const { return neighbours ? rows[0] + n : rows[n]; }
};
template <class F>
FN void each_network(Who who, F f) {  // f(lane, row); of neighbours many at once
  if (NETWORKS > 1 && who.neighbours) {
    const int64_t first = who[0];
    EACH(n, NETWORKS) { f(n, first + n); }
  } else {
    EACH(n, NETWORKS) { f(n, who[n]); }
  }
}

// One v per group: lanes as networks, or the same number in all lanes.
typedef struct {
  Memory m;
  Group *g;
  const Job *job;
  const int32_t *index;  // (BATCH, INDEXED)
  int64_t *faults;       // networks with a number that was not finite
#if THREADS
  bool check;            // instead of Job's, which a GPU's threads share
#define CHECK(k, job) (k).check
#else
#define CHECK(k, job) (job).check
#endif
} Work;

// ---- sums ----

// term(first) + term(first + 1) + ..., n of them: 64 at a time, 64 such sums at a time, and so on, so that no number
// meets a sum of thousands, in which float32 would lose most of it.
template <int n, class F>
FN auto summed(F term, int first = 0) {
  constexpr int PIECE = 64, part = n <= PIECE ? 1 : n <= PIECE * PIECE ? PIECE : PIECE * PIECE;
  auto total = all<decltype(term(0))>(0);
  for (int at = 0; at + part <= n; at += part) {
    if constexpr (part == 1) total = total + term(first + at);
    else total = total + summed<part>(term, first + at);
  }
  if constexpr (n % part) total = total + summed<n % part>(term, first + n / part * part);
  return total;
}

// ---- samples: where the inputs, targets and weight of slot b of this step stand ----

FN int64_t sample(const Work &k, int b, int n, bool own) {
  int64_t at = k.index[b * INDEXED + (INDEXED > 1 ? n : 0)];
  return own ? k.g->base[n] + at : at;
}
FN const real *inputs_of(const Work &k, int b, int n = 0) {
  return k.job->inputs + sample(k, b, n, OWN_INPUTS) * WIDTH[0];
}
FN real target_of(const Work &k, int b, int n, int o) {
  int64_t at = sample(k, b, n, OWN_INPUTS);
  return CLASSES ? (real)k.job->classes[at] : k.job->targets[at * OUTPUTS + o];
}
FN real weight_of_sample(const Work &k, int b, int n) {
  return SAMPLE_WEIGHT ? k.job->weights[sample(k, b, n, SAMPLE_WEIGHT == 2)] : real(1);
}

// ---- one, a number of each network of the group: what lanes have to share in WIDE ----

#if WIDE
typedef real one;  // a number of each network of the group
FN v as_v(one x) { return all<v>(x); }
FN one own(const real (&x)[NETWORKS]) { return x[0]; }
#else
typedef v one;
FN v as_v(one x) { return x; }
FN one own(const real (&x)[NETWORKS]) { return load<v>(x); }
#endif
FN one nought() { return all<one>(0); }
FN real lane(const one &x, int n) { return ((const real *)&x)[NETWORKS == 1 ? 0 : n]; }
