// Evaluation: the loss and the metric of networks, without training.
//
// The twin of evaluate.py. Sums are float64, in one order on every machine: sample m of a network belongs to partial
// sum m % PARTIAL_SUMS, where samples are added in order, and partial sums are added in order at the end.
#pragma once
#include "network.h"

// The networks' samples chunk by chunk: f(start, samples) when the outs of the samples from `start` on are in Memory.
// A network that has fewer samples than another sees its last one again.
template <class F>
FN void for_each_chunk(Context &ctx, Networks networks, F f) {
  Group &group = *ctx.group;
  const Job &job = *ctx.job;
  for_each_network(networks, [&](int n, int64_t at) {
    for (int h = 0; h < HYPERS; h++) group.hyper_real[h][n] = (real)job.hyper[h][at];
    group.size[n] = SUBSETS ? job.sizes[job.position[at]] : job.samples;
    load_data(ctx, n, at);
  });
  load_params(ctx, networks);
  int64_t longest = group.size[0];
  for (int n = 1; n < NETWORKS && SUBSETS; n++) longest = group.size[n] > longest ? group.size[n] : longest;
  ctx.index = &group.index[0][0];
  for (int64_t start = 0; start < longest; start += CHUNK) {
    const int samples = longest - start < CHUNK ? (int)(longest - start) : CHUNK;
    PARALLEL_FOR(b, CHUNK) {
      for (int n = 0; n < ORDERS; n++) {
        const int64_t last = group.size[n] - 1, place = start + b < last ? start + b : last;
        group.index[b][n] = sample_of(ctx, n, (uint32_t)place);
      }
    }
    BARRIER
    gather(ctx, SIZE(CHUNK), 0);
    forward<false>(ctx, SIZE(CHUNK), 0);
    f(start, samples);
  }
}

// A float64 of each of the DOUBLE_LANES networks from n on. These are explicit vectors because GCC 12 miscompiles the
// same sums written as loops over networks.
typedef vec<double, DOUBLE_LANES> doubles;
template <class F>
FN void for_each_doubles(F f) {  // f(n)
  for (int n = 0; n < NETWORKS; n += DOUBLE_LANES) f(n);
}
FN doubles doubles_of(const real *p) { return convert_<doubles>(load<vec<real, DOUBLE_LANES>>(p)); }

FN doubles targets_of(const Context &ctx, int n, int b, int o) {
  if constexpr (!GATHER) return splat<doubles>((double)target_of(ctx, b, n, o));  // one for all
  return lanes_by<doubles>([&](int j) { return (double)target_of(ctx, b, n + j, o); });
}

// How much sample b of a chunk, which is sample `place` of a network, counts; 0 beyond the network's last.
FN doubles weight_of(const Context &ctx, int n, int b, int64_t place) {
  if constexpr (!SAMPLE_WEIGHT && !SUBSETS) return splat<doubles>(1);
  return lanes_by<doubles>([&](int j) {
    const bool exists = !SUBSETS || place < ctx.group->size[n + j];
    return exists ? (double)weight_of_sample(ctx, b, n + j) : 0;
  });
}
// x times weight, and 0 without weight, also where x is infinite or NaN.
FN doubles weighted(doubles x, doubles weight) {
  if constexpr (SAMPLE_WEIGHT || SUBSETS) x = where_(ne_(weight, splat<doubles>(0)), x * weight, splat<doubles>(0));
  return x;
}
// weight times that of the sample's class.
FN doubles class_weighted(const Context &ctx, int n, int b, doubles weight) {
  if constexpr (!CLASS_WEIGHT) return weight;
  const real *of_class = (const real *)ctx.mem.class_weight;
  return lanes_by<doubles>([&](int j) {
    real product = (real)((const double *)&weight)[j];
    product *= of_class[(int)target_of(ctx, b, n + j, 0) * NETWORKS + n + j];
    return (double)product;
  });
}

// Call f(b, sums) for those samples of a chunk that belong to partial sum `part` of `parts`, in order. f adds to the
// `count` sums that are Group.sums[at], [at + pitch], ..., in registers.
template <int count, class Parts, class F>
FN void add_to_sums(Parts parts, Group &group, int at, int pitch, int n, int part, int64_t start, int samples, F f) {
  doubles sums[count];
  UNROLL for (int i = 0; i < count; i++) sums[i] = load<doubles>(&group.sums[at + i * pitch][n]);
  for (int b = CHUNK % parts ? (int)((part + parts - start % parts) % parts) : part; b < CHUNK; b += parts)
    if (b < samples) f(b, sums);
  UNROLL for (int i = 0; i < count; i++) store<doubles>(&group.sums[at + i * pitch][n], sums[i]);
}

FN void add_chunk(const Context &ctx, int64_t start, int samples) {
  const auto O_pitch = OF(PITCH, SIZE(LAYERS));
  constexpr int kinds = SQUARES / PARTIAL_SUMS;
  const auto parts = SIZE(PARTIAL_SUMS);
  PARALLEL_FOR(part, PARTIAL_SUMS) {
    for_each_doubles([&](int n) {
      auto add_sample = [&](int b, doubles *sums) {
        const doubles weight = weight_of(ctx, n, b, start + b);
        auto add = [&](int kind, doubles x) { sums[kind / PARTIAL_SUMS] = sums[kind / PARTIAL_SUMS] + x; };
        add(ERROR, weighted(doubles_of((const real *)ctx.mem.error + b * NETWORKS + n), weight));
        if constexpr (METRIC != R2) {
          const double targets = METRIC == SIGN ? OUTPUTS : 1;
          const doubles hits = doubles_of((const real *)ctx.mem.hits + b * NETWORKS + n);
          add(HITS, weighted(hits / splat<doubles>(targets), weight));
        }
        if constexpr (WEIGHTED) add(COUNTED, class_weighted(ctx, n, b, weight));
        if constexpr (SAMPLE_WEIGHT) add(WEIGHT, weight);
      };
      add_to_sums<kinds>(parts, *ctx.group, ERROR + part, PARTIAL_SUMS, n, part, start, samples, add_sample);
    });
  }
  if constexpr (METRIC == R2) {
    const real *expected = (const real *)(ctx.mem.outs + OUTS_AT[LAYERS - 1]);
    PARALLEL_FOR(item, OUTPUTS * R2_PARTIAL_SUMS) {
      const int o = item / R2_PARTIAL_SUMS, part = item % R2_PARTIAL_SUMS;
      for_each_doubles([&](int n) {
        auto add_sample = [&](int b, doubles *sums) {
          const doubles residual = targets_of(ctx, n, b, o) - doubles_of(expected + (b * O_pitch + o) * NETWORKS + n);
          sums[0] = sums[0] + weighted(residual * residual, weight_of(ctx, n, b, start + b));
        };
        add_to_sums<1>(SIZE(R2_PARTIAL_SUMS), *ctx.group, SQUARES + item, 0, n, part, start, samples, add_sample);
      });
    }
  }
  BARRIER
}

FN doubles total_of(const Group &group, int at, int parts, int n) {
  doubles sum = load<doubles>(group.sums[at] + n);
  for (int part = 1; part < parts; part++) sum = sum + load<doubles>(group.sums[at + part] + n);
  return sum;
}
FN doubles total_weight(const Group &group, int n) {
  if constexpr (SAMPLE_WEIGHT) return total_of(group, WEIGHT, PARTIAL_SUMS, n);
  return lanes_by<doubles>([&](int j) { return (double)group.size[n + j]; });
}

// R2 of an output: 1 - sum of squared residuals / spread. Dataset.spread is NaN where all targets are the same.
FN doubles r2_of(const Context &ctx, Networks networks, int o, int n) {
  constexpr bool of_network = SUBSETS || OWN_INPUTS || SAMPLE_WEIGHT == 2;
  const doubles squares = total_of(*ctx.group, SQUARES + o * R2_PARTIAL_SUMS, R2_PARTIAL_SUMS, n);
  return splat<doubles>(1) - squares / lanes_by<doubles>([&](int j) {
    return ctx.job->spread[(of_network ? ctx.job->position[networks[n + j]] * OUTPUTS : 0) + o];
  });
}

// Job.figures. is_network: which of the lanes have a network.
FN void show(Context ctx, Networks networks, const bool *is_network) {
  Group &group = *ctx.group;
  const Job &job = *ctx.job;
  PARALLEL_FOR(item, SUMS) {
    for_each_doubles([&](int n) { store<doubles>(&group.sums[item][n], splat<doubles>(0)); });
  }
  for_each_chunk(ctx, networks, [&](int64_t start, int samples) {
    loss_and_delta<false>(ctx, SIZE(CHUNK), 0);
    add_chunk(ctx, start, samples);
  });
  if constexpr (METRIC == R2) {
    PARALLEL_FOR(o, OUTPUTS) {
      for_each_doubles([&](int n) {
        store<doubles>(&group.sums[SQUARES + o * R2_PARTIAL_SUMS][n], r2_of(ctx, networks, o, n));
      });
    }
    BARRIER
  }
  PARALLEL_FOR(item, NETWORKS / DOUBLE_LANES) {
    const int n = item * DOUBLE_LANES;
    const doubles weight = total_weight(group, n);
    const doubles counted = WEIGHTED ? total_of(group, COUNTED, PARTIAL_SUMS, n) : weight;
    doubles error = total_of(group, ERROR, PARTIAL_SUMS, n);
    if constexpr (CLASS_WEIGHT)  // smoothing's: a mean over no weight is NaN
      error = where_(ne_(counted, splat<doubles>(0)), error, splat<doubles>(0));
    const doubles loss = error * splat<doubles>(SCALE) / counted;
    doubles metric = splat<doubles>(0);
    if constexpr (METRIC == R2) {
      for (int o = 0; o < OUTPUTS; o++) metric = metric + load<doubles>(&group.sums[SQUARES + o * R2_PARTIAL_SUMS][n]);
      metric = metric / splat<doubles>(OUTPUTS);
    } else metric = total_of(group, HITS, PARTIAL_SUMS, n) / weight;
    for (int j = 0; j < DOUBLE_LANES; j++)
      if (is_network[n + j]) {
        job.figures[networks[n + j]] = ((const double *)&loss)[j];
        job.figures[job.count + networks[n + j]] = ((const double *)&metric)[j];
      }
  }
}
