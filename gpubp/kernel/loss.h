// The loss of a step and the delta of the output layer. Here a lane is a network, or a sample of one network.
#pragma once
#include "memory.h"

constexpr double SCALE = LOSS_SUM ? 1.0 : 1.0 / OUTPUTS;  // from a sum over outputs to a sample's loss

template <class F>
FN v lanes_by(F f) {
  v x;
  for (int j = 0; j < (int)(sizeof(v) / sizeof(real)); j++) ((real *)&x)[j] = f(j);
  return x;
}

// Memory.share, how much each sample counts in the loss of the batch: its weight over the sum of weights, each times
// the weight of its class. The numerator leaves out the class's weight, which cross_entropy() multiplies by, but is 0
// if the product is 0 and the label is not smoothed.
FN void weigh_samples(const Context &ctx) {
  if constexpr (WEIGHTED) {
    PARALLEL_FOR(b, BATCH) {
      for (int n = 0; n < NETWORKS; n++) {
        real weight = weight_of_sample(ctx, b, n);
        if (CLASS_WEIGHT) weight *= ((const real *)ctx.mem.class_weight)[(int)target_of(ctx, b, n, 0) * NETWORKS + n];
        ((real *)ctx.mem.share)[b * NETWORKS + n] = weight;
      }
    }
    BARRIER
    per_network total = blocked_sum<BATCH>([&](int b) { return per_network(ctx.mem.share[b]); });
    per_network scale = real(SCALE) / where_(eq_(total, all<per_network>(0)), all<per_network>(1), total);
    BARRIER
    PARALLEL_FOR(b, BATCH) {
      per_network weight = ctx.mem.share[b];
      if (CLASS_WEIGHT)
        for (int n = 0; n < NETWORKS; n++) {
          const bool smoothed = LABEL_SMOOTHING >= 0 && number_of(hyper_of(ctx, LABEL_SMOOTHING), n) != 0;
          if (number_of(weight, n) != 0 || smoothed) ((real *)&weight)[n] = weight_of_sample(ctx, b, n);
        }
      ctx.mem.share[b] = weight * scale;
    }
    BARRIER
  }
}

// A sample that does not count leaves a 0 wherever x is infinite or NaN: 0 times such an x would be NaN.
FN v zero_if_uncounted(v share, v x) { return WEIGHTED ? where_(share, x, all<v>(0)) : x; }

// Cross-entropy of the softmax p of the outs with the class `target`: returns the loss, and writes (p - y) share as the
// delta, where y is 1 for the class. out(o) reads an out; put(o, x) writes, and put_before(o) reads what it wrote.
// The power of the target is kept out of the sum of the others: a network that is almost sure of its class has a sum
// that would be lost beside that 1.
template <class Out, class Before, class Put>
FN v cross_entropy(const Context &ctx, v target, v share, Out out, Before put_before, Put put) {
  v largest = out(0), target_out = all<v>(0), error;
  for (int o = 1; o < OUTPUTS; o++) largest = max_(largest, out(o));
  auto is_target = [&](int o) { return eq_(target, all<v>(o)); };
  const v others = blocked_sum<OUTPUTS>([&](int o) {
    v shifted = out(o) - largest, power = exp_(shifted);
    target_out = where_(is_target(o), shifted, target_out);
    put(o, power);
    return where_(is_target(o), all<v>(0), power);
  });
  const v power = exp_(target_out), log_total = log1p_(others + (power - real(1)));
  const v per_total = real(1) / (others + power);
  auto p_less_y = [&](int o) { return where_(is_target(o), -others, put_before(o)) * per_total; };
  if constexpr (LABEL_SMOOTHING < 0 && !CLASS_WEIGHT) {
    error = log_total - target_out;
    for (int o = 0; o < OUTPUTS; o++) put(o, zero_if_uncounted(share, p_less_y(o) * share));
  } else {
    const v smoothing = LABEL_SMOOTHING >= 0 ? as_v(hyper_of(ctx, LABEL_SMOOTHING)) : all<v>(0);
    auto label = [&](int o) {  // smoothed and weighted
      v smoothed = (real(1) - smoothing) * is_target(o) + smoothing / real(OUTPUTS);
      return CLASS_WEIGHT ? smoothed * broadcast(ctx.mem.class_weight, o) : smoothed;
    };
    const v labels = blocked_sum<OUTPUTS>(label);
    error = blocked_sum<OUTPUTS>([&](int o) { return label(o) * (log_total - (out(o) - largest)); });
    for (int o = 0; o < OUTPUTS; o++)  // (p labels - label) share
      put(o, zero_if_uncounted(share, (labels * p_less_y(o) - (label(o) - labels * is_target(o))) * share));
  }
  return zero_if_uncounted(share, error * share);
}

// A loss that is a sum over the outputs, each with its target; delta as above.
template <class Out, class Net, class Target, class Put>
FN v elementwise(const Context &ctx, v share, Out out, Net net, Target target, Put put) {
  auto hyper = [&](int h) { return as_v(hyper_of(ctx, h)); };
  const v error = blocked_sum<OUTPUTS>([&](int o) {
    v x = out(o), y = target(o), delta = loss_slope(x, y, hyper) * share;
    if constexpr (!OUTPUT_IDENTITY) delta = delta * slope<LAYERS - 1>(KEEP_NETS ? net(o) : x, x);
    put(o, zero_if_uncounted(share, delta));
    return loss_value(x, y, hyper);
  });
  return zero_if_uncounted(share, error * share);
}

// How many outs of a sample are right. METRIC CLASS: 1 if that of the class is the largest by torch's argmax, for which
// NaN is the largest. SIGN: the number of outs that are above 0 exactly if their target is above 1/2.
template <class Out, class Target>
FN v hits(Out out, Target target) {
  v largest = out(0), argmax = all<v>(0), right = all<v>(0);
  if constexpr (METRIC == SIGN) {
    for (int o = 0; o < OUTPUTS; o++)
      right = right + eq_(gt_(out(o), all<v>(0)), gt_(target(o), all<v>(real(0.5))));
    return right;
  }
  for (int o = 1; o < OUTPUTS; o++) {
    v x = out(o), larger = max_(gt_(x, largest), ne_(x, x) * eq_(largest, largest));
    argmax = where_(larger, all<v>(o), argmax);
    largest = where_(larger, x, largest);
  }
  return eq_(argmax, target(0));
}

// Of a chunk. With `learn`: Memory.error, each sample's loss times its share in the batch's loss, which is 1 / BATCH
// without weights, and Memory.delta, times that share too. Without, to evaluate: error as it is, and for the metric
// Memory.hits or, in the place of the outs, the predictions (expected()).
template <int samples, bool learn = true>
FN void loss_and_delta(const Context &ctx, int start) {
  constexpr int O_pitch = PITCH[LAYERS];
  const entry *nets = ctx.mem.nets + OUTS_AT[LAYERS - 1];
  entry *outs = ctx.mem.outs + OUTS_AT[LAYERS - 1], *delta = ctx.mem.delta;
  // An item is sample b or, where a v has several entries, samples b, b + 1, ..., a lane each: it reads down a column.
  PARALLEL_FOR(item, cdiv(samples, ENTRIES_PER_V)) {
    const int b = item * ENTRIES_PER_V;
    auto sample_in = [&](int j) { return min_of(b + j, samples - 1); };
    auto read_column = [&](const entry *from, int o) {
      if constexpr (ENTRIES_PER_V > 1) return lanes_by([&](int j) { return from[sample_in(j) * O_pitch + o]; });
      else return from[b * O_pitch + o];
    };
    auto write_column = [&](entry *to, int o, v x) {
      if constexpr (ENTRIES_PER_V > 1) {
        for (int j = 0; j < ENTRIES_PER_V; j++)
          if (b + j < samples) ((real *)to)[(b + j) * O_pitch + o] = ((const real *)&x)[j];
      } else write(to, b * O_pitch + o, x);
    };
    auto put = [&](int o, v x) {
      if constexpr (learn) write_column(delta, o, x);
    };
    auto target = [&](int o) {
      if constexpr (ENTRIES_PER_V > 1)
        return lanes_by([&](int j) { return target_of(ctx, start + sample_in(j), 0, o); });
      else if constexpr (GATHER) return ctx.mem.y[b * TARGETS + o];
      else return all<v>(target_of(ctx, start + b, 0, o));
    };
    auto out = [&](int o) { return read_column(outs, o); };
    auto write_of_samples = [&](entry *to, v x) {
      if constexpr (ENTRIES_PER_V > 1) {
        for (int j = 0; j < ENTRIES_PER_V; j++)
          if (b + j < samples) ((real *)to)[start + b + j] = ((const real *)&x)[j];
      } else write(to, start + b, x);
    };
    v share = all<v>(learn ? real(SCALE / BATCH) : real(1)), error;
    if constexpr (!learn) {
      if constexpr (METRIC != R2) write_of_samples(ctx.mem.hits, hits(out, target));
    } else if constexpr (WEIGHTED && ENTRIES_PER_V > 1)
      share = lanes_by([&](int j) { return ctx.mem.share[start + sample_in(j)]; });
    else if constexpr (WEIGHTED) share = broadcast(ctx.mem.share, start + b);
    auto put_before = [&](int o) { return learn ? read_column(delta, o) : out(o); };
    if constexpr (CLASSES) error = cross_entropy(ctx, target(0), share, out, put_before, put);
    else error = elementwise(ctx, share, out, [&](int o) { return read_column(nets, o); }, target, put);
    write_of_samples(ctx.mem.error, error);
    if constexpr (!learn && METRIC == R2 && HAS_INVERSE_LINK)
      for (int o = 0; o < OUTPUTS; o++) write_column(outs, o, expected(out(o)));
  }
  BARRIER
}
