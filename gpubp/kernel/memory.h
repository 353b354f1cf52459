// What a call is given (Job), and what its phases work on (Context): the arrays of a group of networks (Memory) and
// everything else about them (Group). engines/job.py lists the fields of Job, engines/plan.py those of Memory
// and Group; example.h shows all three declared.
#pragma once
#ifndef REAL
#include "example.h"  // for an editor and a reader; a compiler is given the constants of a program before this file
#endif
#include "random.h"

enum Bias { PER_NEURON, PER_LAYER, NO_BIAS };
enum Metric { R2, CLASS, SIGN };
#define OUTPUTS (WIDTH[LAYERS])
#define TARGETS (TARGET_IS_CLASS ? 1 : OUTPUTS)
constexpr bool HAS_L1 = HYPER_L1 >= 0, HAS_L2 = HYPER_L2 >= 0, HAS_DROPOUT = HYPER_DROPOUT >= 0;
constexpr bool HAS_CLIP_VALUE = HYPER_CLIP_VALUE >= 0, HAS_CLIP_NORM = HYPER_CLIP_NORM >= 0;
constexpr bool HAS_LABEL_SMOOTHING = HYPER_LABEL_SMOOTHING >= 0;
constexpr bool CHUNKED = GENERAL || CHUNK < BATCH;
constexpr bool WEIGHTED = SAMPLE_WEIGHT || CLASS_WEIGHT, SEPARATE_ORDERS = ORDERS > 1;
constexpr int64_t REACH = 0x7fffffff;  // the largest index into Memory: engines/cpu.py refuses larger networks
#if GENERAL
#define GROUP_BYTES (sizeof(Group) + SUMS * sizeof(double) + BATCH * sizeof(int32_t))
#else
static_assert(sizeof(Group) == GROUP_BYTES, "engines/plan.py counts otherwise");
static_assert(!CHUNKED || !LAYERWISE, "a layer that changes before the delta below it needs the whole batch at once");
static_assert((int64_t)max_of(1 + SLOTS, NETWORKS) * PADDED_P < REACH,
              "parameters and slots are beyond the reach of an index");
static_assert((int64_t)CHUNK * NETWORKS * max_of(MAX_PITCH, PITCH[0]) < REACH &&
              (int64_t)BATCH * max_of(MAX_PITCH, NETWORKS) < REACH, "a batch is beyond the reach of an index");
#endif

// Entry `at` of the parameters, which are array 0, or of the optimizer's slots, arrays 1, 2, ..., which lie as they do.
FN entry *param_or_slot(const Memory &mem, int array, int at) {
  if constexpr (!SLOTS_APART) return mem.params + (array * PADDED_P + at);
  return (array ? mem.slots + (array - 1) * PADDED_P : mem.params) + at;
}
FN entry *slot_at(const Memory &mem, int slot, int at) { return param_or_slot(mem, 1 + slot, at); }

// The steps that network n takes in this call.
FN int64_t steps_of(const Job &job, int64_t n) {
  int64_t left = job.status[n] == 0 ? job.limit[n] - job.step[n] : 0;
  return left < 0 ? 0 : left < job.steps ? left : job.steps;
}

FN v as_v(const real (&x)[NETWORKS]) { return as_v(load<per_network>(x)); }
FN real lane_of(const per_network &x, int n) { return ((const real *)&x)[NETWORKS == 1 ? 0 : n]; }

template <class V, class F>
FN V lanes_by(F f) {  // f(lane) in each
  V x;
  for (int j = 0; j < (int)(sizeof(V) / sizeof(element<V>)); j++) ((element<V> *)&x)[j] = f(j);
  return x;
}

// The networks of a group: the nth is row networks[n] of Job's arrays. Contiguous rows are read many at once.
struct Networks {
  const int64_t *rows;
  bool contiguous;
  INLINE int64_t operator[](int n) const { return contiguous ? rows[0] + n : rows[n]; }
};
template <class F>
FN void for_each_network(Networks networks, F f) {  // f(n, networks[n])
  if (NETWORKS > 1 && networks.contiguous) {
    const int64_t begin = networks[0];
    GROUP_FOR(n, NETWORKS) { f(n, begin + n); }
  } else {
    GROUP_FOR(n, NETWORKS) { f(n, networks[n]); }
  }
}

struct Context {
  Memory mem;
  Group *group;
  const Job *job;
  const int32_t *index;  // (BATCH, ORDERS): the samples of this step
  int64_t *diverged;     // how many networks had a number that was not finite
  bool dry_run;          // look for such numbers after every step, and store no network
};

// Hyper-parameter h of each network; h: one of the constants HYPER_.
FN per_network hyper_of(const Context &ctx, int h) { return load<per_network>(ctx.group->hyper_real[max_of(h, 0)]); }

// ---- sums ----

// term(begin) + term(begin + 1) + ..., n of them: 64 at a time, 64 such sums at a time, and so on. In float32 a sum of
// thousands would lose most of each further term.
template <int n, class F>
FN auto blocked_sum(constant<n>, F term, int begin = 0) {
  constexpr int BLOCK = 64, block = n <= BLOCK ? 1 : n <= BLOCK * BLOCK ? BLOCK : BLOCK * BLOCK;
  auto total = splat<decltype(term(0))>(0);
  for (int at = 0; at + block <= n; at += block) {
    if constexpr (block == 1) total = total + term(begin + at);
    else total = total + blocked_sum(constant<block>(), term, begin + at);
  }
  if constexpr (n % block) total = total + blocked_sum(constant<n % block>(), term, begin + n / block * block);
  return total;
}
template <class F>
FN auto blocked_sum(int n, F term) {
  auto sum = splat<decltype(term(0))>(0), of_64 = sum, of_4096 = sum;
  for (int at = 0; at < n;) {
    sum = sum + term(at++);
    if (at % 64 == 0) of_64 = of_64 + sum, sum = splat<decltype(sum)>(0);
    if (at % 4096 == 0) of_4096 = of_4096 + of_64, of_64 = sum;
  }
  return of_4096 + (of_64 + sum);
}

// ---- samples: where network n finds the inputs, targets and weight of sample b of this step ----

FN int64_t sample_at(const Context &ctx, int b, int n, bool of_network) {  // of_network: in its own array of samples
  int64_t at = ctx.index[b * ORDERS + (ORDERS > 1 ? n : 0)];
  return of_network ? ctx.group->samples_at[n] + at : at;
}
FN const real *inputs_of(const Context &ctx, int b, int n = 0) {
  return ctx.job->inputs + sample_at(ctx, b, n, OWN_INPUTS) * WIDTH[0];
}
FN real target_of(const Context &ctx, int b, int n, int o) {
  int64_t at = sample_at(ctx, b, n, OWN_INPUTS);
  return TARGET_IS_CLASS ? (real)ctx.job->classes[at] : ctx.job->targets[at * OUTPUTS + o];
}
FN real weight_of_sample(const Context &ctx, int b, int n) {
  return SAMPLE_WEIGHT ? ctx.job->weights[sample_at(ctx, b, n, SAMPLE_WEIGHT == 2)] : real(1);
}

// The inputs of a chunk, read from the data set where they are: a view (product.h) of which (b, i) is broadcast.
struct Inputs {
  static constexpr bool transposed = false;
  const Context &ctx;
  int start, column = 0;
  INLINE v broadcast(int b, int i) const { return splat<v>(row(b)[i]); }
  INLINE Inputs from(int b, int i) const { return {ctx, start + b, column + i}; }
  INLINE const real *row(int b) const { return inputs_of(ctx, start + b) + column; }
  INLINE bool aligned() const {
    return WIDTH[0] % PITCH_UNIT == 0 && (uint64_t)ctx.job->inputs % (PITCH_UNIT * sizeof(real)) == 0;
  }
};

// ---- what a group loads before its first step, and before each chunk ----

FN void load_params(const Context &ctx, Networks networks) {  // and the optimizer's slots
  for (int array = 0; array <= SLOTS; array++)
    copy_in(param_or_slot(ctx.mem, array, 0), array ? ctx.job->slots[array - 1] : ctx.job->params, networks);
  BARRIER
}
// Network n of the group is row `at` of Job: where its samples begin, and the weights of its classes.
FN void load_data(const Context &ctx, int n, int64_t at) {
  const Job &job = *ctx.job;
  if (OWN_SAMPLES || SAMPLE_WEIGHT == 2) {
    ctx.group->samples_at[n] = job.position[at] * job.samples;
    ctx.group->subset_at[n] = SUBSETS ? job.starts[job.position[at]] : 0;
  }
  if (CLASS_WEIGHT)
    for (int o = 0; o < OUTPUTS; o++)
      ((real *)ctx.mem.class_weight)[o * NETWORKS + n] = (real)job.class_weight[at * OUTPUTS + o];
}

template <class Samples, class Targets, class Inputs, class Target>
FN void gather_samples(Samples samples, Targets targets, entry *x, entry *y, Inputs inputs, Target target);
template <class Samples>
FN void gather(const Context &ctx, Samples samples, int start) {
  if constexpr (GATHER) {  // which a machine does
    gather_samples(
        samples, SIZE(TARGETS), ctx.mem.x, ctx.mem.y, [&](int b, int n) { return inputs_of(ctx, start + b, n); },
        [&](int b, int n, int o) { return target_of(ctx, start + b, n, o); });
    BARRIER
  }
}
