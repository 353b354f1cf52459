// The loss of a step and the delta of the output layer. Each lane of a per_sample is a network, or a sample of one.
#pragma once
#include "memory.h"

#define SCALE (LOSS_SUM ? 1.0 : 1.0 / OUTPUTS)  // from a sum over outputs to a sample's loss

// What a loss is computed with: per_network or, where lanes are outputs, a v of samples; one sample on a GPU, which has
// a thread for each.
#if LANES_ARE_OUTPUTS && !ON_GPU
typedef v per_sample;
constexpr int SAMPLES_PER_ITEM = ENTRIES_PER_V;
FN per_sample as_per_sample(per_network x) { return as_v(x); }
#else
typedef per_network per_sample;
constexpr int SAMPLES_PER_ITEM = 1;
FN per_sample as_per_sample(per_network x) { return x; }
#endif

// Memory.share, how much each sample counts in the loss of the batch: its weight over the sum of weight * class weight,
// times SCALE; 0 if that sum is. cross_entropy() multiplies by the class weight itself. The share is also 0 if weight *
// class weight is, unless labels are smoothed.
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
    per_network total = blocked_sum(SIZE(BATCH), [&](int b) { return per_network(ctx.mem.share[b]); });
    per_network scale = where_(eq_(total, splat<per_network>(0)), total, real(SCALE) / total);
    BARRIER
    PARALLEL_FOR(b, BATCH) {
      per_network weight = ctx.mem.share[b];
      if (CLASS_WEIGHT)
        for (int n = 0; n < NETWORKS; n++) {
          const bool smoothed = HAS_LABEL_SMOOTHING && lane_of(hyper_of(ctx, HYPER_LABEL_SMOOTHING), n) != 0;
          if (lane_of(weight, n) != 0 || smoothed) ((real *)&weight)[n] = weight_of_sample(ctx, b, n);
        }
      ctx.mem.share[b] = weight * scale;
    }
    BARRIER
  }
}

// A sample that does not count leaves a 0 wherever x is infinite or NaN: 0 times such an x would be NaN.
template <class V>
FN V zero_if_uncounted(V share, V x) {
  return WEIGHTED ? where_(share, x, splat<V>(0)) : x;
}
FN per_sample delta_of(per_sample share, per_sample x) { return zero_if_uncounted(share, EXPONENTIAL ? flush_(x) : x); }

// Cross-entropy of the softmax p of the outs with the class `target`: returns the loss, and writes (p - y) share as the
// delta, where y is 1 for the class. out(o) reads an out; put(o, x) writes, and stored(o) reads what it wrote.
// The exponential of the target is kept out of the sum of the others: if a network is almost sure of its class, that
// sum would be lost beside a 1.
template <class Out, class Before, class Put>
FN per_sample cross_entropy(const Context &ctx, per_sample target, per_sample share, Out out, Before stored, Put put) {
  per_sample largest = out(0), target_out = splat<per_sample>(0), error;
  for (int o = 1; o < OUTPUTS; o++) largest = max_(largest, out(o));
  auto is_target = [&](int o) { return eq_(target, splat<per_sample>(o)); };
  const per_sample others = blocked_sum(SIZE(OUTPUTS), [&](int o) {
    per_sample shifted = out(o) - largest, exponential = exp_(shifted);
    target_out = where_(is_target(o), shifted, target_out);
    put(o, exponential);
    return where_(is_target(o), splat<per_sample>(0), exponential);
  });
  const per_sample exponential = exp_(target_out), log_total = log1p_(others + (exponential - real(1)));
  const per_sample inverse_total = real(1) / (others + exponential);
  auto p_less_y = [&](int o) { return where_(is_target(o), -others, stored(o)) * inverse_total; };
  if constexpr (!HAS_LABEL_SMOOTHING && !CLASS_WEIGHT) {
    error = log_total - target_out;
    for (int o = 0; o < OUTPUTS; o++) put(o, delta_of(share, p_less_y(o) * share));
  } else {
    const per_sample smoothing =
        HAS_LABEL_SMOOTHING ? as_per_sample(hyper_of(ctx, HYPER_LABEL_SMOOTHING)) : splat<per_sample>(0);
    auto label = [&](int o) {  // smoothed and weighted
      per_sample smoothed = (real(1) - smoothing) * is_target(o) + smoothing / real(OUTPUTS);
      return CLASS_WEIGHT ? smoothed * as_per_sample(ctx.mem.class_weight[o]) : smoothed;
    };
    const per_sample labels = blocked_sum(SIZE(OUTPUTS), label);
    error = blocked_sum(SIZE(OUTPUTS), [&](int o) {  // an out far below the largest may be -inf less
      const per_sample own = label(o);
      return where_(own, own * (log_total - (out(o) - largest)), splat<per_sample>(0));
    });
    for (int o = 0; o < OUTPUTS; o++)  // (p labels - label) share
      put(o, delta_of(share, (labels * p_less_y(o) - (label(o) - labels * is_target(o))) * share));
  }
  return zero_if_uncounted(share, error * share);
}

// A loss that is a sum over the outputs, each with its target; delta as above.
template <class Out, class Net, class Target, class Put>
FN per_sample elementwise(const Context &ctx, per_sample share, Out out, Net net, Target target, Put put) {
  auto hyper = [&](int h) { return as_per_sample(hyper_of(ctx, h)); };
  const per_sample error = blocked_sum(SIZE(OUTPUTS), [&](int o) {
    per_sample x = out(o), y = target(o), delta = loss_slope(x, y, hyper) * share;
    if constexpr (!OUTPUT_IDENTITY) delta = delta * slope(SIZE(LAYERS - 1), KEEP_NETS ? net(o) : x, x);
    put(o, delta_of(share, delta));
    return loss_value(x, y, hyper);
  });
  return zero_if_uncounted(share, error * share);
}

// How many outs of a sample are right. METRIC CLASS: 1 if that of the class is the largest by torch's argmax, for which
// NaN is the largest. SIGN: the number of outs that are above 0 exactly if their target is above 1/2.
template <class Out, class Target>
FN per_sample hits(Out out, Target target) {
  per_sample largest = out(0), argmax = splat<per_sample>(0), right = splat<per_sample>(0);
  if constexpr (METRIC == SIGN) {
    for (int o = 0; o < OUTPUTS; o++)
      right = right + eq_(gt_(out(o), splat<per_sample>(0)), gt_(target(o), splat<per_sample>(real(0.5))));
    return right;
  }
  for (int o = 1; o < OUTPUTS; o++) {
    per_sample x = out(o), larger = max_(gt_(x, largest), ne_(x, x) * eq_(largest, largest));
    argmax = where_(larger, splat<per_sample>(o), argmax);
    largest = where_(larger, x, largest);
  }
  return eq_(argmax, target(0));
}

// Of a chunk. With `learn`: Memory.error, a sample's error summed over its outputs, and Memory.delta, both times its
// share, which without weights is SCALE / BATCH. Without, to evaluate: error as it is, and for the metric Memory.hits
// or, in the place of the outs, the predictions (expected()).
template <bool learn, class Samples>
FN void loss_and_delta(const Context &ctx, Samples samples, int start) {
  const auto O_pitch = OF(PITCH, SIZE(LAYERS));
  const entry *nets = ctx.mem.nets + OUTS_AT[LAYERS - 1];
  entry *outs = ctx.mem.outs + OUTS_AT[LAYERS - 1], *delta = ctx.mem.delta;
  // An item is sample b or, on a CPU whose lanes are outputs, samples b, b + 1, ..., a lane each, read down a column.
  PARALLEL_FOR(item, cdiv(samples, SAMPLES_PER_ITEM)) {
    const int b = item * SAMPLES_PER_ITEM;
    auto sample_in = [&](int j) { return min_of(b + j, samples - 1); };
    auto read_column = [&](const entry *from, int o) {
      if constexpr (SAMPLES_PER_ITEM > 1)
        return lanes_by<per_sample>([&](int j) { return from[sample_in(j) * O_pitch + o]; });
      else return from[b * O_pitch + o];
    };
    auto write_column = [&](entry *to, int o, per_sample x) {
      if constexpr (SAMPLES_PER_ITEM > 1) {
        for (int j = 0; j < SAMPLES_PER_ITEM; j++)
          if (b + j < samples) ((real *)to)[(b + j) * O_pitch + o] = ((const real *)&x)[j];
      } else to[b * O_pitch + o] = x;
    };
    auto put = [&](int o, per_sample x) {
      if constexpr (learn) write_column(delta, o, x);
    };
    auto target = [&](int o) {
      if constexpr (SAMPLES_PER_ITEM > 1)
        return lanes_by<per_sample>([&](int j) { return target_of(ctx, start + sample_in(j), 0, o); });
      else if constexpr (GATHER) return ctx.mem.y[b * TARGETS + o];
      else return splat<per_sample>(target_of(ctx, start + b, 0, o));
    };
    auto out = [&](int o) { return read_column(outs, o); };
    auto write_of_samples = [&](entry *to, per_sample x) {
      if constexpr (SAMPLES_PER_ITEM > 1) {
        for (int j = 0; j < SAMPLES_PER_ITEM; j++)
          if (b + j < samples) ((real *)to)[start + b + j] = ((const real *)&x)[j];
      } else to[start + b] = x;
    };
    per_sample share = splat<per_sample>(learn ? real(SCALE / BATCH) : real(1)), error;
    if constexpr (!learn) {
      if constexpr (METRIC != R2) write_of_samples(ctx.mem.hits, hits(out, target));
    } else if constexpr (WEIGHTED && SAMPLES_PER_ITEM > 1)
      share = lanes_by<per_sample>([&](int j) { return ctx.mem.share[start + sample_in(j)]; });
    else if constexpr (WEIGHTED) share = as_per_sample(ctx.mem.share[start + b]);
    auto stored = [&](int o) { return learn ? read_column(delta, o) : out(o); };
    if constexpr (TARGET_IS_CLASS) error = cross_entropy(ctx, target(0), share, out, stored, put);
    else error = elementwise(ctx, share, out, [&](int o) { return read_column(nets, o); }, target, put);
    write_of_samples(ctx.mem.error, error);
    if constexpr (!learn && METRIC == R2 && HAS_INVERSE_LINK)
      for (int o = 0; o < OUTPUTS; o++) write_column(outs, o, expected(out(o)));
  }
  BARRIER
}
