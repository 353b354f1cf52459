// The program of the tutorial's network, lanes being 8 networks, as engines/program.py prints it, by which a person and
// an editor read the sources of kernel/. A compiler is given such a text for each kernel; this one it never sees.
#pragma once
#define TRAIN 0  // of TASK
#define PREDICT 1  // of TASK
#define EVALUATE 2  // of TASK
#define REAL float  // the type of all numbers of networks
#define VECTOR 8  // numbers in a register
#define PARTS 1  // registers in a v
#define WIDE 0  // whether lanes are outputs of one network, not networks
#define TEAM 0  // whether threads share one network
#define THREADS 0  // of a network's block on a GPU; 0 on a CPU
#define TOGETHER 1  // networks that share such a block
#define NEAR 1  // whether slots are where parameters are
#define TASK 0  // TRAIN, PREDICT or EVALUATE
constexpr int LAYERS = 2;  // with weights
constexpr int BATCH = 1;  // samples of a step
constexpr int CHUNK = 1;  // of them that go through the network at once
constexpr int BIAS = 1;  // 0 neuron, 1 layer, 2 none
constexpr int TRAIN_BIAS = 0;  // whether biases change
constexpr int CLASSES = 0;  // whether a target is the number of a class
constexpr int LOSS_SUM = 1;  // whether a sample's loss is the sum over its outputs, not their mean
constexpr int METRIC = 0;  // 0 r2, 1 classes, 2 sign
constexpr int LINKED = 0;  // whether the prediction is a function of the out
constexpr int OUTPUT_IDENTITY = 0;  // whether the last layer's slope is 1
constexpr int KEEP_NETS = 0;  // whether a slope is a function of the net, not of the out alone
constexpr int OWN = 0;  // whether networks see other samples than their neighbours, or stand at other steps
constexpr int INDEXED = 1;  // networks of a group that have an index of samples of their own
constexpr int GATHER = 0;  // whether samples are copied to where products read them
constexpr int ROWS = 0;  // whether index tensors say which samples a network has
constexpr int OWN_INPUTS = 0;  // whether every network has inputs and targets of its own
constexpr int SAMPLE_WEIGHT = 0;  // 0 none, 1 shared, 2 each network's
constexpr int SHUFFLE = 0;  // 0 none, 1 network, 2 shared
constexpr int CLASS_WEIGHT = 0;  // whether classes have weights
constexpr int LAYERWISE = 0;  // whether a layer changes before the delta below it
constexpr int L1 = -1;  // which hyper-parameter it is; -1 where it is off
constexpr int L2 = -1;  // which hyper-parameter it is; -1 where it is off
constexpr int CLIP_VALUE = -1;  // which hyper-parameter it is; -1 where it is off
constexpr int CLIP_NORM = -1;  // which hyper-parameter it is; -1 where it is off
constexpr int DROPOUT = -1;  // which hyper-parameter it is; -1 where it is off
constexpr int LABEL_SMOOTHING = -1;  // which hyper-parameter it is; -1 where it is off
constexpr int ABSORBING = 1;  // whether NaN or infinity, once in a row, stays
constexpr int HYPERS = 1;  // hyper-parameters
constexpr int SLOTS = 0;  // of the optimizer: further rows of a network
constexpr int COLUMNS = 0;  // scalars that it keeps for each network
constexpr int RATES = 1;  // what a step's update takes
constexpr int MOVING = 0;  // whether rates or columns change every step
constexpr int TIMED = 0;  // whether they depend on the number of the step
constexpr int WIDTH[] = {2, 2, 2};  // of the layers, the inputs first
constexpr int PITCH[] = {2, 2, 2};  // of a width: elements from a row of a matrix to the next
constexpr int BIASES[] = {1, 1};  // of a layer
constexpr int ROW_AT[] = {0, 5, 10};  // where a layer begins in a row of parameters: its weight, then its biases
constexpr int WEIGHT_AT[] = {0, 5, 10};  // where its weight begins here, with every row padded,
constexpr int BIAS_AT[] = {4, 9};  // and its biases
constexpr int OUTS_AT[] = {0, 2, 4};  // and its outs, of CHUNK samples
constexpr int ROW = 10;  // numbers of a row of parameters,
constexpr int P = 10;  // and elements here
constexpr int WIDEST = 2;  // the largest pitch of outs
constexpr int NUMBERS = 21;  // elements of Memory
constexpr int GROUP = 640;  // bytes of Group
// Of a product (m, k) @ (k, n), n counted in v: the rows and columns that are computed together.
constexpr struct { int m, n, k, rows, cols; } TILES[] = {
    {1, 2, 2, 1, 2},
    {2, 2, 1, 2, 2},
    {1, 2, 1, 1, 2},
};
#include "machines/networks.h"
struct Memory {
  s *base;
  s *row = base + 0;  // (P): parameters
  s *slots = base + 10;  // (SLOTS, P): of the optimizer
  s *grad = base + 10;  // (P): over the chunks so far, or before clipping
  s *x = base + 10;  // (CHUNK, I): gathered samples
  s *y = base + 10;  // (CHUNK, TARGETS)
  s *outs = base + 10;  // (CHUNK, O) per layer
  s *nets = base + 14;  // (CHUNK, O) per layer, where a slope needs them
  s *belows = base + 14;  // (CHUNK, O) per layer: outs after dropout
  s *masks = base + 14;  // (CHUNK, O) per layer: what dropout multiplies by
  s *delta = base + 14;  // (CHUNK, O) of a layer
  s *below = base + 16;  // (CHUNK, I) of it: the next delta
  s *turned = base + 18;  // (O, I): a weight, lanes along its inputs
  s *sums = base + 18;  // (O): of columns
  s *bias_sums = base + 20;  // (L, WIDEST): of deltas, where one bias serves a layer
  s *error = base + 20;  // (BATCH): a sample's share of the loss
  s *share = base + 21;  // (BATCH): how much a sample counts
  s *hits = base + 21;  // (BATCH): how many outs are right
  s *class_weight = base + 21;  // (O)
};
struct alignas(64) Group {
  double hyper[2][8];  // hyper-parameters
  double columns[1][8];  // what the optimizer keeps of a network
  double now[8];  // the step, for a schedule
  double end[8];  // and the last
  real typed[2][8];  // hyper
  real rate[1][8];  // what an update of this step takes
  bool alike;  // whether all networks are: then only the first of columns, now and end is current
  uint32_t id[8];  // Population.ids
  uint32_t step[8];  // of dropout
  int64_t base[8];  // where a network's own samples begin,
  int64_t rows[8];  // and its row of Job.rows
  int32_t index[1][1];  // the samples of this step
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
template <int l> FN v value(v net) {
  if constexpr (l == 0) return value_0<v>(net);
  if constexpr (l == 1) return value_0<v>(net);
}
template <int l> FN v slope(v net, v out) {
  if constexpr (l == 0) return slope_0<v>(net, out);
  if constexpr (l == 1) return slope_0<v>(net, out);
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
template <class V> FN void prepare(const V *hyper, V *columns, V _0step, V _0total, V *rate) {
  typedef element<V> T;
  const V _lr = hyper[0];
  const V of_to = _lr;
  rate[0] = of_to;
}
template <class V, class R> FN void update(V &param, V _grad, V *slots, R rate) {
  typedef element<V> T;
  param = fma_(-rate(0), _grad, param);
}
