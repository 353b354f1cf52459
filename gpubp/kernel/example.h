// The program of the tutorial's network, lanes being 8 networks, as engines/program.py prints it, by which a person and
// an editor read the sources of kernel/. A compiler is given such a text for each kernel; this one it never sees.
#pragma once
#define TRAIN 0  // a TASK
#define EVALUATE 1  // a TASK
#define TASK 0  // TRAIN or EVALUATE
#define LAYOUT CPU_NETWORKS  // of the table in machine.h
#define REAL float  // the type of parameters, samples and all that is computed from them
#define VECTOR 8  // numbers in a register
#define REGISTERS_PER_V 1  // registers that make a v
#define TF32 0  // products of tensor cores that make one of float32; 0: none, products are exact
#define GENERAL 0  // whether sizes are those of a call, not constants
#define SLOTS_APART 0  // whether slots are in global memory, and params in shared memory
constexpr int LAYERS = 2;  // with weights
constexpr int BATCH = 1;  // samples of a step
constexpr int CHUNK = 1;  // samples of a batch that go through the network at once
constexpr int BIAS_KIND = 1;  // 0 neuron, 1 layer, 2 none
constexpr int TRAIN_BIAS = 0;  // whether biases change
constexpr int TARGET_IS_CLASS = 0;  // whether a target is the number of a class
constexpr int LOSS_SUM = 1;  // whether a sample's loss is the sum over its outputs, not their mean
constexpr int EXPONENTIAL = 0;  // whether an output's delta is a difference of powers of e
constexpr int METRIC = 0;  // 0 r2, 1 classes, 2 sign
constexpr int HAS_INVERSE_LINK = 0;  // whether R2 compares targets with a function of the outs
constexpr int OUTPUT_IDENTITY = 0;  // whether the last layer's slope is 1
constexpr int KEEP_NETS = 0;  // whether a slope is a function of the net, not of the out alone
constexpr int OWN_SAMPLES = 0;  // whether networks may see different samples or be at different steps
constexpr int ORDERS = 1;  // in which a group takes its samples: one for all its networks, or one for each
constexpr int GATHER = 0;  // whether samples are copied to Memory, or products read them where they are
constexpr int SUBSETS = 0;  // whether index tensors say which samples a network has
constexpr int OWN_INPUTS = 0;  // whether every network has inputs and targets of its own
constexpr int SAMPLE_WEIGHT = 0;  // 0 none, 1 shared, 2 each network's
constexpr int SHUFFLE = 0;  // 0 none, 1 network, 2 shared
constexpr int CLASS_WEIGHT = 0;  // whether classes have weights
constexpr int LAYERWISE = 0;  // whether a layer changes before the delta below it
constexpr int HYPER_L1 = -1;  // the place of l1 in Job.hyper; -1: off
constexpr int HYPER_L2 = -1;  // the place of l2 in Job.hyper; -1: off
constexpr int HYPER_CLIP_VALUE = -1;  // the place of clip_value in Job.hyper; -1: off
constexpr int HYPER_CLIP_NORM = -1;  // the place of clip_norm in Job.hyper; -1: off
constexpr int HYPER_DROPOUT = -1;  // the place of dropout in Job.hyper; -1: off
constexpr int HYPER_LABEL_SMOOTHING = -1;  // the place of label_smoothing in Job.hyper; -1: off
constexpr int NONFINITE_STAYS = 1;  // whether NaN or infinity, once in a row, stays in it
constexpr int HYPERS = 1;  // hyper-parameters that the kernel reads
constexpr int SLOTS = 0;  // numbers that the optimizer keeps for each parameter
constexpr int NETWORK_SLOTS = 0;  // numbers that the optimizer keeps for each network (Optimizer.columns)
constexpr int COEFFICIENTS = 1;  // numbers that the update of a step takes, the learning rate first
constexpr int COEFFICIENTS_CHANGE = 0;  // whether coefficients or network slots change from step to step
constexpr int COEFFICIENTS_USE_STEP = 0;  // whether coefficients depend on the number of the step
constexpr int WIDTH[] = {2, 2, 2};  // of the layers, the inputs' first
constexpr int PITCH[] = {2, 2, 2};  // entries from a row of that width to the next, mostly whole v (Plan.pitch)
constexpr int BIAS_COUNT[] = {1, 1};  // how many biases each layer has
constexpr int LAYER_AT[] = {0, 5, 10};  // where each layer begins in a row of Job.params: its weight, then its biases
constexpr int WEIGHT_AT[] = {0, 5, 10};  // where each layer's weight begins in Memory.params, with every row padded
constexpr int BIAS_AT[] = {4, 9};  // where each layer's biases begin in Memory.params
constexpr int OUTS_AT[] = {0, 2, 4};  // where each layer's outs begin in Memory.outs, of CHUNK samples
constexpr int P = 10;  // parameters of a network: numbers of a row of Job.params
constexpr int PADDED_P = 10;  // entries of Memory.params
constexpr int MAX_PITCH = 2;  // the largest pitch of outs
constexpr int PITCH_UNIT = 1;  // a block's PITCH is an odd multiple of it, or 1 for a single column
constexpr int MEMORY_ENTRIES = 21;  // from Memory.base on
constexpr int FAR_ENTRIES = 0;  // from Memory.far on, in a GPU's global memory
constexpr int GROUP_BYTES = 640;  // of Group
// Of each product (m, k) @ (k, n), n counted in v: rows and columns that a thread computes at once.
constexpr struct { int m, n, k, rows, cols; } TILES[] = {
    {1, 2, 1, 1, 2},
    {1, 2, 2, 1, 2},
    {2, 2, 1, 2, 2},
};
#include "machine.h"
struct Memory {
  entry *base, *far;  // far: in a GPU's global memory. An array that is not used has the place of the next
  entry *params = base + 0;  // (PADDED_P): the parameters
  entry *slots = base + 10;  // (SLOTS, PADDED_P): of the optimizer
  entry *grad = base + 10;  // (PADDED_P): over the chunks so far, or to clip
  entry *x = base + 10;  // (CHUNK, I): inputs, with GATHER
  entry *y = base + 10;  // (CHUNK, TARGETS): targets, with GATHER
  entry *outs = base + 10;  // (CHUNK, O) of each layer
  entry *nets = base + 14;  // (CHUNK, O) of each layer, with KEEP_NETS
  entry *dropped = base + 14;  // (CHUNK, O) of each layer: its outs after dropout
  entry *masks = base + 14;  // (CHUNK, O) of each layer: what dropout multiplies them by
  entry *delta = base + 14;  // (CHUNK, O): of the layer that backward() is at
  entry *delta_below = base + 16;  // (CHUNK, I): of the layer below; the two take turns
  entry *transposed = base + 18;  // (O, I): a weight transposed
  entry *column_sums = base + 18;  // (O): of a matrix with O columns; without it, where the outs are
  entry *delta_sums = base + 20;  // (LAYERS, MAX_PITCH): of deltas over the chunks so far, for the one bias of a layer
  entry *error = base + 20;  // (BATCH): each sample's part of the loss
  entry *share = base + 21;  // (BATCH): how much each sample counts (loss.h)
  entry *hits = base + 21;  // (BATCH): how many outs of each sample are right
  entry *class_weight = base + 21;  // (O): of each class
};
struct alignas(64) Group {  // hyper, network_slots: + 1, as in Job, for C++ has no empty arrays
  double hyper[2][8];  // hyper-parameters
  double network_slots[1][8];  // numbers that the optimizer keeps
  double schedule_step[8];  // the number of the step
  double schedule_end[8];  // and of the last of the training
  real hyper_real[2][8];  // hyper as real
  real coefficient[1][8];  // what this step's update takes
  bool same_coefficients;  // whether all networks have the same; then only the first's are current
  uint32_t id[8];  // Population.ids, by which random numbers are drawn
  uint32_t dropout_step[8];  // the number of the step
  int64_t samples_at[8];  // where a network's own samples begin in Job's,
  int64_t subset_at[8];  // and its subset in Job.subset
  int32_t index[1][1];  // the samples of this step
};
struct Job {  // what a call is given: arrays of TrainState and Dataset; N networks, M samples
  real *params;  // (N, P)
  real *slots[SLOTS + 1];  // (N, P) each: of the optimizer
  const double *hyper[HYPERS + 1];  // (N) each: hyper-parameters
  double *network_slots[NETWORK_SLOTS + 1];  // (N) each: of the optimizer
  const double *class_weight;  // (N, O)
  const int64_t *ids;  // (N)
  const int64_t *position;  // (N): of each network in the data
  const int64_t *limit;  // (N): the last step of the round
  const int64_t *end;  // (N): the last step of the training
  int64_t *step;  // (N): steps taken
  const int8_t *status;  // (N): 0 of a network that trains
  real *loss;  // (N): of the last step, before its update
  double *total;  // (N): the sum of the losses of the round
  const real *inputs;  // (M, I) or (N, M, I)
  const real *targets;  // (M, O) or (N, M, O)
  const int64_t *classes;  // (M) or (N, M): targets that are class numbers
  const real *weights;  // (M) or (N, M): of the samples
  const double *spread;  // (1, O) or (N, O): Dataset.spread, of R2
  const int64_t *subset;  // the samples of each network by their numbers, one network after the other
  const int64_t *starts;  // (N): where a network's begin in subset
  const int64_t *sizes;  // (N): how many they are
  int64_t count;  // N
  int64_t samples;  // M
  int64_t seed;  // Population.seed
  int64_t steps;  // of this call, at most
  int64_t threads;  // of a CPU
  int64_t dry_run;  // whether to look for non-finite numbers after every step, and change nothing
  int64_t *taken;  // (N): -t if a number is not finite after step t; else, with `dry_run`, t
  double *figures;  // (2, N): loss and metric, of an evaluation
  const int32_t *shape;  // of a general kernel's networks (constants.shape())
};
// 'sigmoid'
template <class V> FN V value_0(V _net) {
  typedef element<V> T;
  const V of_neg = (-_net);
  const V of_exp = exp_(of_neg);
  const V of_add = (T(1.0) + of_exp);
  const V of_truediv = (T(1.0) / of_add);
  return of_truediv;
}
template <class V> FN V slope_0(V _net, V _out) {
  typedef element<V> T;
  const V of_sub = (T(1.0) - _out);
  const V of_mul = (_out * of_sub);
  return of_mul;
}
template <class L, class V> FN V value(L l, V net) {
  if constexpr (L::value == 0) return value_0(net);
  if constexpr (L::value == 1) return value_0(net);
}
template <class L, class V> FN V slope(L l, V net, V out) {
  if constexpr (L::value == 0) return slope_0(net, out);
  if constexpr (L::value == 1) return slope_0(net, out);
}
// 'half_squared_error'
template <class V, class H> FN V loss_value(V _out, V _target, H hyper) {
  typedef element<V> T;
  const V of_sub = (_out - _target);
  const V of_mul = (T(0.5) * of_sub);
  const V of_sub_1 = (_out - _target);
  const V of_mul_1 = (of_mul * of_sub_1);
  return of_mul_1;
}
template <class V, class H> FN V loss_slope(V _out, V _target, H hyper) {
  typedef element<V> T;
  const V of_sub = (_out - _target);
  return of_sub;
}
template <class V> FN V expected(V _out) {
  typedef element<V> T;
  return _out;
}
// 'sgd, constant'
template <class V>
FN void prepare(const V *hyper, V *network_slots, V _0step, V _0total, V *coefficient) {
  typedef element<V> T;
  const V _lr = hyper[0];
  const V of_to = _lr;
  coefficient[0] = of_to;
}
template <class V, class R> FN void optimizer(V &param, V _grad, V *slots, R coefficient) {
  typedef element<V> T;
  param = fma_(-coefficient(0), _grad, param);
}
#if 0  // What a program of GPU_STREAMED has besides. Its matrices and long vectors (stream.py) are in Memory.far.
#define LAYOUT GPU_STREAMED  // of the table in machine.h
#define THREADS 32  // of a team, which trains a network together; of a block, in GPU_THREAD and where a team is blocks
#define TEAMS_PER_BLOCK 1  // with a network each; 1 in GPU_THREAD
#define BLOCKS_PER_TEAM 1  // a cluster, which trains a network together; 1 unless GPU_STREAMED
#define BLOCKS_AT_ONCE 0  // of a multiprocessor, which registers must suffice for; 0: none
constexpr int SHARED_BYTES = 1696;  // of shared memory that a block needs
constexpr int ROW_PITCH = 11;  // numbers from one thread's row in shared memory to the next
constexpr int TEAM_PITCH = 160;  // bytes from one team's Group and Memory in shared memory to the next
constexpr int GROUP_IN_GLOBAL = 0;  // whether Group is in global memory, before the entries
constexpr int DEPTH = 16;  // of k in a strip of a matrix
constexpr int STAGES = 3;  // strips of both matrices that are in shared memory at once
constexpr int STAGE_ENTRIES = 128;  // the room of such a pair of strips
constexpr int RING_AT = 160;  // the byte of shared memory where they begin
// Of each product (m, k) @ (k, n), n counted in v: rows and columns that a thread computes at once.
constexpr struct { int m, n, k, rows, cols; } TILES[] = {
    {1, 1, 1, 1, 1},
    {1, 1, 16, 1, 1},
    {2, 1, 16, 1, 1},
};
// Rows and columns that a whole block computes at once. TILES has the thread's part of (rows, cols, DEPTH).
constexpr struct { int m, n, k, rows, cols; } BLOCK_TILES[] = {
    {1, 1, 2, 1, 1},
    {2, 1, 1, 2, 1},
};
struct End {  // what else a GPU's call is given
  int8_t *status;  // (N): Job.status
  int64_t *diverged;  // (N): the step that did not count
  real *far;  // (blocks, TEAMS_PER_BLOCK, FAR_ENTRIES): arrays of Memory in global memory
  int64_t *turn;  // (blocks of networks): pieces that are done; 0 before and after a call
  unsigned *tickets;  // (1): parts that are taken, 0 before and after a call; null without shares
  int64_t parts;  // of the call
  int64_t whole;  // parts that are a block of networks each, the first ones; the others are shares
  int64_t share;  // steps of a share; the last one has what remains
};
#endif
