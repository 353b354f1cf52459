// What a gradient becomes: penalties, clipping, the optimizer's update and its rates; `at` is a place in a row.
#pragma once
#include "memory.h"

FN v limited(const Work &k, v grad) {
  if constexpr (CLIP_VALUE >= 0) {
    v limit = spread(k.g->typed[most(CLIP_VALUE, 0)]);
    grad = at_least_(at_most_(grad, limit), -limit);
  }
  return grad;
}
FN v penalised(const Work &k, v grad, v weight) {
  if constexpr (L2 >= 0) grad = fma_(spread(k.g->typed[most(L2, 0)]), weight, grad);
  if constexpr (L1 >= 0) grad = fma_(spread(k.g->typed[most(L1, 0)]), sign_(weight), grad);
  return grad;
}
FN void change(const Work &k, int at, v grad) {
  v param = read(k.m.row, at), slots[SLOTS + 1];
  for (int slot = 0; slot < SLOTS; slot++) slots[slot] = read(number_of(k.m, 1 + slot, at), 0);
  update(param, grad, slots, [&](int r) { return spread(k.g->rate[r]); });
  write(k.m.row, at, param);
  for (int slot = 0; slot < SLOTS; slot++) write(number_of(k.m, 1 + slot, at), 0, slots[slot]);
}
// The whole gradient of an element is known: change it, or wait for the norm of all.
template <bool weight>
FN void finish(const Work &k, int at, v grad) {
  if constexpr (weight) grad = penalised(k, grad, read(k.m.row, at));
  grad = limited(k, grad);
  if constexpr (CLIP_NORM >= 0) write(k.m.grad, at, grad);
  else change(k, at, grad);
}

// ---- sums over all of a row ----

// The sum of f(place in a row) over weights, and over biases if asked for: down the columns, across, layer by layer.
template <int l = 0, class F>
FN one sum_of(const Work &k, bool biases, F f) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Op = PITCH[l + 1], W = WEIGHT_AT[l], size = BIASES[l];
  EACH(item, pad(O) / NL) {
    v sum = summed<I>([&](int i) { return f(W + i * Op + item * NL); });
    if (biases && size == O) sum = sum + f(BIAS_AT[l] + item * NL);
    write(k.m.sums, item * NL, sum);
  }
  BARRIER
  one total = summed<O>([&](int o) { return one(k.m.sums[o]); });
  BARRIER
  if (biases && size == 1 && O > 1) {
    v bias = f(BIAS_AT[l]);
    total = total + *(const one *)&bias;
  }
  if constexpr (l + 1 < L) total = total + sum_of<l + 1>(k, biases, f);
  return total;
}

constexpr bool is_weight(int at) {
  for (int l = 0; l < L; l++)
    if (at < WEIGHT_AT[l + 1]) return at < BIAS_AT[l];
  return false;
}
FN void clip_norm(const Work &k) {
  if constexpr (CLIP_NORM >= 0) {
    one square = sum_of(k, TRAIN_BIAS, [&](int at) { v grad = read(k.m.grad, at); return grad * grad; });
    v factor = at_most_(spread(k.g->typed[most(CLIP_NORM, 0)]) / (sqrt_(as_v(square)) + real(1e-6)), all<v>(1));
    EACH(item, P / NL) {
      if (TRAIN_BIAS || is_weight(item * NL)) change(k, item * NL, read(k.m.grad, item * NL) * factor);
    }
    BARRIER
  }
}

FN one penalty(const Work &k) {
  one total = nought();
  if constexpr (L1 >= 0)
    total = total + own(k.g->typed[most(L1, 0)]) * sum_of(k, false, [&](int at) { return abs_(read(k.m.row, at)); });
  if constexpr (L2 >= 0)
    total = total + real(0.5) * own(k.g->typed[most(L2, 0)]) * sum_of(k, false, [&](int at) {
              v weight = read(k.m.row, at);
              return weight * weight;
            });
  return total;
}

// ---- the rates of a step ----

// What depends on network and step alone, in double: the scheduled rate, and what the optimizer prepares. For networks
// that are alike in all of this, one stands for all.
template <class V, class Keep>
FN void rates_of(Group &g, int n, Keep keep) {
  V hyper[HYPERS + 1], columns[COLUMNS + 1], rate[RATES + 1];
  for (int h = 0; h < HYPERS; h++) hyper[h] = load<V>(g.hyper[h] + n);
  for (int c = 0; c < COLUMNS; c++) columns[c] = load<V>(g.columns[c] + n);
  prepare(hyper, columns, load<V>(g.now + n), load<V>(g.end + n), rate);
  for (int c = 0; c < COLUMNS; c++) store<V>(g.columns[c] + n, columns[c]);
  for (int r = 0; r < RATES; r++) keep(r, rate[r]);
  store<V>(g.now + n, load<V>(g.now + n) + 1);
}
FN void rates(const Work &k) {
  Group &g = *k.g;
  if (NETWORKS > 1 && g.alike) {
    EACH(item, 1) {
      rates_of<double>(g, 0, [&](int r, double rate) {
        for (int n = 0; n < NETWORKS; n++) g.rate[r][n] = (real)rate;
      });
    }
  } else {
    typedef vec<double, DOUBLES> V;
    EACH(item, NETWORKS / DOUBLES) {
      rates_of<V>(g, item * DOUBLES, [&](int r, V rate) {
        for (int j = 0; j < DOUBLES; j++) g.rate[r][item * DOUBLES + j] = (real)((const double *)&rate)[j];
      });
    }
  }
  BARRIER
}
FN bool alike(const Group &g) {
  int64_t apart = 0;
  auto compare = [&](const double (&x)[NETWORKS]) {
    for (int n = 1; n < NETWORKS; n++) apart |= reinterpret<int64_t>(x[n]) ^ reinterpret<int64_t>(x[0]);
  };
  for (int h = 0; h < HYPERS; h++) compare(g.hyper[h]);
  for (int c = 0; c < COLUMNS; c++) compare(g.columns[c]);
  compare(g.now), compare(g.end);
  return !apart;
}
