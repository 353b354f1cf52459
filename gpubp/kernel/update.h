// From a gradient to the updated parameter: penalties, clipping, the optimizer. `at` is a place in Memory.params.
#pragma once
#include "memory.h"

FN v penalised(const Context &ctx, v grad, v weight) {
  if constexpr (L2 >= 0) grad = fma_(as_v(hyper_of(ctx, L2)), weight, grad);
  if constexpr (L1 >= 0) grad = fma_(as_v(hyper_of(ctx, L1)), sign_(weight), grad);
  return grad;
}
FN v clipped(const Context &ctx, v grad) {
  if constexpr (CLIP_VALUE >= 0) {
    v limit = as_v(hyper_of(ctx, CLIP_VALUE));
    grad = at_least_(at_most_(grad, limit), -limit);
  }
  return grad;
}
struct Numbers {  // of a parameter: itself and its slots
  v param, slots[SLOTS + 1];
};
FN Numbers numbers_at(const Context &ctx, int at) {
  Numbers x = {read(ctx.mem.params, at)};
  for (int slot = 0; slot < SLOTS; slot++) x.slots[slot] = read(entry_of(ctx.mem, 1 + slot, at), 0);
  return x;
}
FN void update_param(const Context &ctx, int at, v grad, Numbers x) {  // by the rule `update`, with this step's rates
  update(x.param, grad, x.slots, [&](int r) { return as_v(ctx.group->rate[r]); });
  write(ctx.mem.params, at, x.param);
  for (int slot = 0; slot < SLOTS; slot++) write(entry_of(ctx.mem, 1 + slot, at), 0, flush_(x.slots[slot]));
}
// The gradient of a parameter is complete: update the parameter, or, to clip the norm of all gradients, store it first.
template <bool is_weight>
FN void apply_gradient(const Context &ctx, int at, v grad, const Numbers &x) {
  if constexpr (is_weight) grad = penalised(ctx, grad, x.param);
  grad = clipped(ctx, grad);
  if constexpr (CLIP_NORM >= 0) write(ctx.mem.grad, at, grad);
  else update_param(ctx, at, grad, x);
}
template <bool is_weight>
FN void apply_gradient(const Context &ctx, int at, v grad) {
  apply_gradient<is_weight>(ctx, at, grad, numbers_at(ctx, at));
}

// ---- sums over all parameters ----

// The sum of f(at) over the weights, with `biases` also over the biases: down the columns, across, layer by layer.
template <int l = 0, class F>
FN per_network sum_over_params(const Context &ctx, bool biases, F f) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], size = BIASES[l];
  PARALLEL_FOR(item, pad(O) / ENTRIES_PER_V) {
    const int o = item * ENTRIES_PER_V;
    v sum = blocked_sum<I>([&](int i) { return f(WEIGHT_AT[l] + i * PITCH[l + 1] + o); });
    if (biases && size == O) sum = sum + f(BIAS_AT[l] + o);
    write(ctx.mem.column_sums, o, sum);
  }
  BARRIER
  per_network total = blocked_sum<O>([&](int o) { return per_network(ctx.mem.column_sums[o]); });
  BARRIER
  if (biases && size == 1 && O > 1) {
    v bias = f(BIAS_AT[l]);
    total = total + *(const per_network *)&bias;
  }
  if constexpr (l + 1 < LAYERS) total = total + sum_over_params<l + 1>(ctx, biases, f);
  return total;
}

constexpr bool holds_weight(int at) {
  for (int l = 0; l < LAYERS; l++)
    if (at < WEIGHT_AT[l + 1]) return at < BIAS_AT[l];
  return false;
}
FN void clip_norm(const Context &ctx) {
  if constexpr (CLIP_NORM >= 0) {
    auto squared = [&](int at) { v grad = read(ctx.mem.grad, at); return grad * grad; };
    const per_network square = sum_over_params(ctx, TRAIN_BIAS, squared);
    v factor = at_most_(as_v(hyper_of(ctx, CLIP_NORM)) / (sqrt_(as_v(square)) + real(1e-6)), splat<v>(1));
    PARALLEL_FOR(item, PADDED_P / ENTRIES_PER_V) {
      const int at = item * ENTRIES_PER_V;
      if (TRAIN_BIAS || holds_weight(at)) update_param(ctx, at, read(ctx.mem.grad, at) * factor, numbers_at(ctx, at));
    }
    BARRIER
  }
}

FN per_network penalty(const Context &ctx) {  // what l1 and l2 add to the loss
  per_network total = splat<per_network>(0);
  auto size = [&](int at) { return abs_(read(ctx.mem.params, at)); };
  auto squared = [&](int at) { v weight = read(ctx.mem.params, at); return weight * weight; };
  if constexpr (L1 >= 0) total = total + hyper_of(ctx, L1) * sum_over_params(ctx, false, size);
  if constexpr (L2 >= 0) total = total + real(0.5) * hyper_of(ctx, L2) * sum_over_params(ctx, false, squared);
  return total;
}

// ---- the rates of a step ----

// What an update takes besides gradient and slots: the scheduled learning rate and what the optimizer prepares. These
// depend on network and step alone and are computed in double. Calls store_rate(r, rate) for those networks from n on
// that fit in a V, and moves them to the next step.
template <class V, class StoreRate>
FN void rates_of(Group &group, int n, StoreRate store_rate) {
  V hyper[HYPERS + 1], columns[COLUMNS + 1], rate[RATES + 1];
  for (int h = 0; h < HYPERS; h++) hyper[h] = load<V>(group.hyper[h] + n);
  for (int c = 0; c < COLUMNS; c++) columns[c] = load<V>(group.columns[c] + n);
  prepare(hyper, columns, load<V>(group.schedule_step + n), load<V>(group.schedule_end + n), rate);
  for (int c = 0; c < COLUMNS; c++) store<V>(group.columns[c] + n, columns[c]);
  for (int r = 0; r < RATES; r++) store_rate(r, rate[r]);
  store<V>(group.schedule_step + n, load<V>(group.schedule_step + n) + 1);
}
FN void compute_rates(const Context &ctx) {
  Group &group = *ctx.group;
  if (NETWORKS > 1 && group.same_rates) {
    PARALLEL_FOR(item, 1) {
      rates_of<double>(group, 0, [&](int r, double rate) {
        for (int n = 0; n < NETWORKS; n++) group.rate[r][n] = (real)rate;
      });
    }
  } else {
    typedef vec<double, DOUBLE_LANES> V;
    PARALLEL_FOR(item, NETWORKS / DOUBLE_LANES) {
      const int n = item * DOUBLE_LANES;
      rates_of<V>(group, n, [&](int r, V rate) {
        for (int j = 0; j < DOUBLE_LANES; j++) group.rate[r][n + j] = (real)((const double *)&rate)[j];
      });
    }
  }
  BARRIER
}
FN bool have_same_rates(const Group &group) {
  int64_t differ = 0;
  auto compare = [&](const double (&x)[NETWORKS]) {
    for (int n = 1; n < NETWORKS; n++) differ |= reinterpret<int64_t>(x[n]) ^ reinterpret<int64_t>(x[0]);
  };
  for (int h = 0; h < HYPERS; h++) compare(group.hyper[h]);
  for (int c = 0; c < COLUMNS; c++) compare(group.columns[c]);
  compare(group.schedule_step), compare(group.schedule_end);
  return !differ;
}
