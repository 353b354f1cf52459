// What a call is given (Job) and what its phases work on (Work): the arrays of a group of networks (Memory), and what
// else is known of them (Group), which engines/plan.py lists and the program's text declares.
#pragma once
#ifndef REAL
#include "example.h"  // for an editor and who reads: a compiler is given a program
#endif
#include "random.h"

enum Bias { NEURON, LAYER, NONE };
enum Metric { R2, CLASS, SIGN };
constexpr int L = LAYERS, OUTPUTS = WIDTH[L], TARGETS = CLASSES ? 1 : OUTPUTS;
constexpr bool CHUNKED = CHUNK < BATCH, WEIGHTED = SAMPLE_WEIGHT || CLASS_WEIGHT, APART = INDEXED > 1;
static_assert(sizeof(Group) == GROUP, "engines/plan.py counts otherwise");
static_assert(!CHUNKED || !LAYERWISE, "a layer that changes before the delta below it needs the whole batch at once");
constexpr int64_t REACH = 0x7fffffff;  // of an index: engines/cpu.py refuses what is larger
static_assert((int64_t)most(1 + SLOTS, NETWORKS) * P < REACH, "a row and its slots are beyond the reach of an index");
static_assert((int64_t)CHUNK * NETWORKS * most(WIDEST, PITCH[0]) < REACH &&
              (int64_t)BATCH * most(WIDEST, NETWORKS) < REACH, "a batch is beyond the reach of an index");

// Element `at` of the parameters of a group, or of a slot of theirs, from 1.
FN s *number_of(const Memory &m, int slot, int at) {
  if constexpr (NEAR) return m.row + (slot * P + at);
  return (slot ? m.slots + (slot - 1) * P : m.row) + at;
}

// What a call of the engine is given; the arrays are TrainState's and Dataset's, N networks and M samples.
struct Job {
  real *params, *slots[SLOTS + 1];                      // (N, ROW)
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

// A number of each network, as v.
FN v spread(const real (&x)[NETWORKS]) { return as_v(own(x)); }
FN one nought() { return all<one>(0); }
FN real lane(const one &x, int n) { return ((const real *)&x)[NETWORKS == 1 ? 0 : n]; }

// The networks of a group, by their rows; most often neighbours, whose numbers are moved by whole vectors.
struct Who {
  const int64_t *rows;
  bool neighbours;
  INLINE int64_t operator[](int n) const { return neighbours ? rows[0] + n : rows[n]; }
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

struct Work {
  Memory m;
  Group *g;
  const Job *job;
  const int32_t *index;  // (BATCH, INDEXED): the samples of a step
  int64_t *faults;       // networks with a number that was not finite
  bool check;            // look for such numbers after every step, and change nothing
};

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

// Inputs of a chunk where they are, for a product: element (b, i).
struct Inputs {
  const Work &k;
  int first;
  INLINE v element(int b, int i) const { return all<v>(inputs_of(k, first + b)[i]); }
};

// ---- what a group is given before its first step, and before each chunk ----

// The rows of the networks `who` into the group; in Job's rows nothing is padded.
FN void fetch(const Work &k, Who who) {
  for (int slot = 0; slot <= SLOTS; slot++)
    copy_in(number_of(k.m, slot, 0), slot ? k.job->slots[slot - 1] : k.job->params, who);
  BARRIER
}
// Where a network's own samples begin, and what its classes weigh.
FN void begin_data(const Work &k, int n, int64_t at) {
  const Job &job = *k.job;
  if (OWN || SAMPLE_WEIGHT == 2) {
    k.g->base[n] = job.position[at] * job.samples;
    k.g->rows[n] = job.position[at] * job.longest;
  }
  if (CLASS_WEIGHT)
    for (int o = 0; o < OUTPUTS; o++)
      ((real *)k.m.class_weight)[o * NETWORKS + n] = (real)job.class_weight[at * OUTPUTS + o];
}

template <int rows, int targets, class Inputs, class Target>
FN void side_by_side(s *x, s *y, Inputs inputs, Target target);  // of the machines that GATHER
template <int rows, bool targets = true>
FN void gather(const Work &k, int first) {
  if constexpr (GATHER) {
    side_by_side<rows, targets ? TARGETS : 0>(
        k.m.x, k.m.y, [&](int b, int n) { return inputs_of(k, first + b, n); },
        [&](int b, int n, int o) { return target_of(k, first + b, n, o); });
    BARRIER
  }
}
