// The loss of a step and the delta of the output layer. Lanes are networks, or samples of one network.
#pragma once
#include "memory.h"

constexpr double SCALE = LOSS_SUM ? 1.0 : 1.0 / OUTPUTS;

template <class F>
FN v lanes_by(F f) {
  v x;
  for (int j = 0; j < (int)(sizeof(v) / sizeof(real)); j++) ((real *)&x)[j] = f(j);
  return x;
}

// How much each sample of the batch counts: weight / sum of weights, where classes have weights times those. It is 0
// for a sample without weight, also by its class alone, unless its label is smoothed.
FN void weigh(const Work &k) {
  if constexpr (WEIGHTED) {
    EACH(b, BATCH) {
      for (int n = 0; n < NETWORKS; n++) {
        real weight = weight_of_sample(k, b, n);
        if (CLASS_WEIGHT) weight *= ((const real *)k.m.class_weight)[(int)target_of(k, b, n, 0) * NETWORKS + n];
        ((real *)k.m.share)[b * NETWORKS + n] = weight;
      }
    }
    BARRIER
    one total = summed<BATCH>([&](int b) { return one(k.m.share[b]); });
    one scale = real(SCALE) / where_(eq_(total, nought()), all<one>(1), total);
    BARRIER
    EACH(b, BATCH) {
      one weight = k.m.share[b];
      if (CLASS_WEIGHT)
        for (int n = 0; n < NETWORKS; n++) {
          const bool smoothed = LABEL_SMOOTHING >= 0 && k.g->typed[most(LABEL_SMOOTHING, 0)][n] != 0;
          if (lane(weight, n) != 0 || smoothed) ((real *)&weight)[n] = weight_of_sample(k, b, n);
        }
      k.m.share[b] = weight * scale;
    }
    BARRIER
  }
}

// What counts nothing is 0, whatever has become of it: 0 times what overflowed would be NaN.
FN v heard(v share, v x) { return WEIGHTED ? where_(share, x, all<v>(0)) : x; }

FN v hyper_of(const Work &k, int h) { return spread(k.g->typed[h]); }

// The softmax's cross-entropy with the classes `mine`: its loss, and p - y times share as the delta. out(o) and
// delta(o) read an output and what put(o, x) wrote for it. Of the total of powers the class's own is kept apart: what a
// network that is sure of it still misses would be lost beside a 1.
template <class Out, class Delta, class Put>
FN v cross_entropy(const Work &k, v mine, v share, Out out, Delta delta, Put put) {
  v top = out(0), own = all<v>(0), error;
  for (int o = 1; o < OUTPUTS; o++) top = max_(top, out(o));
  auto hit = [&](int o) { return eq_(mine, all<v>(o)); };
  const v others = summed<OUTPUTS>([&](int o) {
    v shifted = out(o) - top, power = exp_(shifted);
    own = where_(hit(o), shifted, own);
    put(o, power);
    return where_(hit(o), all<v>(0), power);
  });
  const v power = exp_(own), log_total = log1p_(others + (power - real(1))), chance = real(1) / (others + power);
  auto gap = [&](int o) { return where_(hit(o), -others, delta(o)) * chance; };  // p, less 1 for the class
  if constexpr (LABEL_SMOOTHING < 0 && !CLASS_WEIGHT) {
    error = log_total - own;
    for (int o = 0; o < OUTPUTS; o++) put(o, heard(share, gap(o) * share));
  } else {
    const v smoothing = LABEL_SMOOTHING >= 0 ? hyper_of(k, LABEL_SMOOTHING) : all<v>(0);
    auto part = [&](int o) {
      v each = (real(1) - smoothing) * hit(o) + smoothing / real(OUTPUTS);
      return CLASS_WEIGHT ? each * get(k.m.class_weight, o) : each;
    };
    const v parts = summed<OUTPUTS>(part);
    error = summed<OUTPUTS>([&](int o) { return part(o) * (log_total - (out(o) - top)); });
    for (int o = 0; o < OUTPUTS; o++)
      put(o, heard(share, (parts * gap(o) - (part(o) - parts * hit(o))) * share));
  }
  return heard(share, error * share);
}

// A loss that is a sum over the outputs, each with a target of its own.
template <class Out, class Net, class Target, class Put>
FN v elementwise(const Work &k, v share, Out out, Net net, Target target, Put put) {
  auto hyper = [&](int h) { return hyper_of(k, h); };
  const v error = summed<OUTPUTS>([&](int o) {
    v own = out(o), wanted = target(o), delta = loss_slope(own, wanted, hyper) * share;
    if constexpr (!OUTPUT_IDENTITY) delta = delta * slope<L - 1>(KEEP_NETS ? net(o) : own, own);
    put(o, heard(share, delta));
    return loss_value(own, wanted, hyper);
  });
  return heard(share, error * share);
}

// The outs are right by how many: 1 where the class's is the largest, as torch's argmax has it, to which NaN is the
// largest; or the number of outs on the side of 0 on which the target is of 1/2.
template <class Out, class Target>
FN v hits(Out out, Target target) {
  v top = out(0), place = all<v>(0), sides = all<v>(0);
  if constexpr (METRIC == SIGN) {
    for (int o = 0; o < OUTPUTS; o++)
      sides = sides + eq_(gt_(out(o), all<v>(0)), gt_(target(o), all<v>(real(0.5))));
    return sides;
  }
  for (int o = 1; o < OUTPUTS; o++) {
    v own = out(o), larger = max_(gt_(own, top), ne_(own, own) * eq_(top, top));
    place = where_(larger, all<v>(o), place);
    top = where_(larger, own, top);
  }
  return eq_(place, target(0));
}

// learn: delta too, and errors as shares of the batch's; else errors as they are, and hits, or in the place of the outs
// what they expect of the target.
template <int rows, bool learn = true>
FN void loss_and_delta(const Work &k, int first) {
  constexpr int Op = PITCH[L];
  const s *nets = k.m.nets + OUTS_AT[L - 1];
  s *outs = k.m.outs + OUTS_AT[L - 1], *delta = k.m.delta;
  EACH(item, cdiv(rows, NL)) {
    const int b = item * NL;
    auto sample_in = [&](int j) { return least(b + j, rows - 1); };
    auto pick = [&](const s *from, int o) {
      if constexpr (NL > 1) return lanes_by([&](int j) { return from[sample_in(j) * Op + o]; });
      else return from[b * Op + o];
    };
    auto place = [&](s *to, int o, v x) {
      if constexpr (NL > 1) {
        for (int j = 0; j < NL; j++)
          if (b + j < rows) ((real *)to)[(b + j) * Op + o] = ((const real *)&x)[j];
      } else write(to, b * Op + o, x);
    };
    auto put = [&](int o, v x) {
      if constexpr (learn) place(delta, o, x);
    };
    auto target = [&](int o) {
      if constexpr (NL > 1) return lanes_by([&](int j) { return target_of(k, first + sample_in(j), 0, o); });
      else if constexpr (GATHER) return k.m.y[b * TARGETS + o];
      else return all<v>(target_of(k, first + b, 0, o));
    };
    auto out = [&](int o) { return pick(outs, o); };
    auto keep = [&](s *to, v x) {
      if constexpr (NL > 1) {
        for (int j = 0; j < NL; j++)
          if (b + j < rows) ((real *)to)[first + b + j] = ((const real *)&x)[j];
      } else write(to, first + b, x);
    };
    v share = all<v>(learn ? real(SCALE / BATCH) : real(1)), error;
    if constexpr (!learn) {
      if constexpr (METRIC != R2) keep(k.m.hits, hits(out, target));
    } else if constexpr (WEIGHTED && NL > 1) share = lanes_by([&](int j) { return k.m.share[first + sample_in(j)]; });
    else if constexpr (WEIGHTED) share = get(k.m.share, first + b);
    auto put_before = [&](int o) { return learn ? pick(delta, o) : out(o); };
    if constexpr (CLASSES) error = cross_entropy(k, target(0), share, out, put_before, put);
    else error = elementwise(k, share, out, [&](int o) { return pick(nets, o); }, target, put);
    keep(k.m.error, error);
    if constexpr (!learn && METRIC == R2 && LINKED)
      for (int o = 0; o < OUTPUTS; o++) place(outs, o, expected(out(o)));
  }
  BARRIER
}
