// From a gradient to the updated parameter. apply_gradient(): penalised(), clipped(), then update_param(), which calls
// the rule `optimizer`; with HAS_CLIP_NORM the gradient waits in Memory.grad, and clip_norm() calls update_param().
// `at` is a place in Memory.params.
#pragma once
#include "memory.h"

// V: v or, of a single parameter of a GPU's wide block, entry.
template <class V>
FN V of_network(per_network x) {
  if constexpr (sizeof(V) == sizeof(v)) return as_v(x);
  else return x;
}
template <class V>
FN V penalised(const Context &ctx, V grad, V weight) {
  if constexpr (HAS_L2) grad = fma_(of_network<V>(hyper_of(ctx, HYPER_L2)), weight, grad);
  if constexpr (HAS_L1) grad = fma_(of_network<V>(hyper_of(ctx, HYPER_L1)), sign_(weight), grad);
  return grad;
}
template <class V>
FN V clipped(const Context &ctx, V grad) {
  if constexpr (HAS_CLIP_VALUE) {
    V limit = of_network<V>(hyper_of(ctx, HYPER_CLIP_VALUE));
    grad = at_least_(at_most_(grad, limit), -limit);
  }
  return grad;
}
// Where a v of parameters begins; Single: where one is.
FN v read_at(const entry *p, int at) { return read(p, at); }
FN void write_at(entry *p, int at, v x) { write(p, at, x); }
struct Single {
  int at;
};
FN entry read_at(const entry *p, Single one) { return p[one.at]; }
FN void write_at(entry *p, Single one, entry x) { p[one.at] = x; }

template <class V>
struct ParamState {  // a parameter and the optimizer's slots of it
  V param, slots[SLOTS + 1];
};
template <class At>
FN auto load_state(const Context &ctx, At at) {
  ParamState<decltype(read_at(ctx.mem.params, at))> x = {read_at(ctx.mem.params, at)};
  for (int slot = 0; slot < SLOTS; slot++) x.slots[slot] = read_at(slot_at(ctx.mem, slot, 0), at);
  return x;
}
template <class At, class V>
FN void update_param(const Context &ctx, At at, V grad, ParamState<V> x) {
  optimizer(x.param, grad, x.slots, [&](int c) { return of_network<V>(load<per_network>(ctx.group->coefficient[c])); });
  write_at(ctx.mem.params, at, x.param);
  for (int slot = 0; slot < SLOTS; slot++) write_at(slot_at(ctx.mem, slot, 0), at, flush_(x.slots[slot]));
}
// The gradient of a parameter is complete: update the parameter, or, to clip the norm of all gradients, store it first.
template <bool is_weight, class At, class V>
FN void apply_gradient(const Context &ctx, At at, V grad, const ParamState<V> &x) {
  if constexpr (is_weight) grad = penalised(ctx, grad, x.param);
  grad = clipped(ctx, grad);
  if constexpr (HAS_CLIP_NORM) write_at(ctx.mem.grad, at, grad);
  else update_param(ctx, at, grad, x);
}
template <bool is_weight, class At, class V>
FN void apply_gradient(const Context &ctx, At at, V grad) {
  apply_gradient<is_weight>(ctx, at, grad, load_state(ctx, at));
}

// ---- sums over all parameters ----

// Room for sums of columns: in GPU_WIDE mostly that of the outs, which hold nothing outside the chunks.
FN entry *room_for_sums(const Context &ctx) {
  return LAYOUT == GPU_WIDE && !TF32 && BIAS_KIND != PER_LAYER ? ctx.mem.outs : ctx.mem.column_sums;
}
// The sum of f(at) over the weights, with `biases` also over the biases: down the columns, across, layer by layer.
template <bool biases, class L, class F>
FN per_network sum_over_layer(const Context &ctx, L l, F f) {
  const auto O = OF(WIDTH, above(l));
  const int size = OF(BIAS_COUNT, l);
  entry *sums = room_for_sums(ctx);
  auto place = [](int at) {
    if constexpr (decltype(matrix(OF(PITCH, above(L())), nullptr))::column) return Single{at};
    else return at;
  };
  PARALLEL_FOR(item, pad(O) / ENTRIES_PER_V) {
    const int o = item * ENTRIES_PER_V;
    const int first = OF(WEIGHT_AT, l) + o;
    auto sum = blocked_sum(OF(WIDTH, l), [&](int i) { return f(place(first + i * OF(PITCH, above(l)))); });
    if (biases && size == O) sum = sum + f(place(OF(BIAS_AT, l) + o));
    write_at(sums, place(o), sum);
  }
  BARRIER
  per_network total = blocked_sum(O, [&](int o) { return per_network(sums[o]); });
  BARRIER
  if (biases && size == 1 && O > 1) {
    v bias = f((int)OF(BIAS_AT, l));
    total = total + *(const per_network *)&bias;
  }
  return total;
}
template <bool biases, class F>
FN per_network sum_over_params(const Context &ctx, F f) {
  return sum_of_layers([&](auto l) { return sum_over_layer<biases>(ctx, l, f); });
}

FN bool holds_weight(int at) {
  for (int l = 0; l < LAYERS; l++)
    if (at < WEIGHT_AT[l + 1]) return at < BIAS_AT[l];
  return false;
}
FN void clip_norm(const Context &ctx) {
  if constexpr (HAS_CLIP_NORM) {
    auto squared = [&](auto at) { auto grad = read_at(ctx.mem.grad, at); return grad * grad; };
    const per_network square = sum_over_params<TRAIN_BIAS>(ctx, squared);
    v factor = at_most_(as_v(hyper_of(ctx, HYPER_CLIP_NORM)) / (sqrt_(as_v(square)) + real(1e-6)), splat<v>(1));
    PARALLEL_FOR(item, PADDED_P / ENTRIES_PER_V) {
      const int at = item * ENTRIES_PER_V;
      if (TRAIN_BIAS || holds_weight(at)) update_param(ctx, at, read(ctx.mem.grad, at) * factor, load_state(ctx, at));
    }
    BARRIER
  }
}

FN per_network penalty(const Context &ctx) {  // that l1 and l2 add to the loss: if they are 0 nothing, of inf too
  const per_network none = splat<per_network>(0);
  per_network total = none;
  auto term = [&](per_network factor, per_network sum) { return where_(factor, factor * sum, none); };
  auto size = [&](auto at) { return abs_(read_at(ctx.mem.params, at)); };
  auto squared = [&](auto at) { auto weight = read_at(ctx.mem.params, at); return weight * weight; };
  if constexpr (HAS_L1) total = total + term(hyper_of(ctx, HYPER_L1), sum_over_params<false>(ctx, size));
  if constexpr (HAS_L2) total = total + term(real(0.5) * hyper_of(ctx, HYPER_L2), sum_over_params<false>(ctx, squared));
  return total;
}

// ---- the coefficients of a step ----

// What an update takes besides gradient and slots: the scheduled learning rate, the decay, and what the optimizer
// prepares. They depend on network and step alone and are computed in double. Calls store_coefficient(c, x) for those
// networks from n on that fit in a V, and moves them to the next step.
template <class V, class Store>
FN void coefficients_of(Group &group, int n, Store store_coefficient) {
  V hyper[HYPERS + 1], network_slots[NETWORK_SLOTS + 1], coefficient[COEFFICIENTS + 1];
  for (int h = 0; h < HYPERS; h++) hyper[h] = load<V>(group.hyper[h] + n);
  for (int s = 0; s < NETWORK_SLOTS; s++) network_slots[s] = load<V>(group.network_slots[s] + n);
  prepare(hyper, network_slots, load<V>(group.schedule_step + n), load<V>(group.schedule_end + n), coefficient);
  for (int s = 0; s < NETWORK_SLOTS; s++) store<V>(group.network_slots[s] + n, network_slots[s]);
  for (int c = 0; c < COEFFICIENTS; c++) store_coefficient(c, coefficient[c]);
  store<V>(group.schedule_step + n, load<V>(group.schedule_step + n) + 1);
}
FN void compute_coefficients(const Context &ctx) {
  Group &group = *ctx.group;
  if (NETWORKS > 1 && group.same_coefficients) {
    PARALLEL_FOR(item, 1) {
      coefficients_of<double>(group, 0, [&](int c, double coefficient) {
        for (int n = 0; n < NETWORKS; n++) group.coefficient[c][n] = (real)coefficient;
      });
    }
  } else {
    typedef vec<double, DOUBLE_LANES> V;
    GROUP_FOR(item, NETWORKS / DOUBLE_LANES) {
      const int n = item * DOUBLE_LANES;
      coefficients_of<V>(group, n, [&](int c, V coefficient) {
        for (int j = 0; j < DOUBLE_LANES; j++) group.coefficient[c][n + j] = (real)((const double *)&coefficient)[j];
      });
    }
  }
  BARRIER
}
FN bool have_same_coefficients(const Group &group) {
  int64_t differ = 0;
  auto compare = [&](const double (&x)[NETWORKS]) {
    for (int n = 1; n < NETWORKS; n++) differ |= reinterpret<int64_t>(x[n]) ^ reinterpret<int64_t>(x[0]);
  };
  for (int h = 0; h < HYPERS; h++) compare(group.hyper[h]);
  for (int s = 0; s < NETWORK_SLOTS; s++) compare(group.network_slots[s]);
  compare(group.schedule_step), compare(group.schedule_end);
  return !differ;
}
