// READ THIS FIRST. A group of networks side by side, or one network, trained for K steps: forward, loss, backward,
// update.
//
// The twin of backprop.py and engines/block.py: the same words (net, out, delta), each phase below its forward twin.
// machine.h says what a lane is; the rules (value, slope, loss_value, loss_slope, prepare, update) are the tables'
// rows, translated by engines/translate.py; the constants in capitals say what was asked for (engines/program.py).
// Every sum runs in one order, over k in a product, over samples, over the outputs of a sample, down and across a
// gradient, so that all machines give the same bits. What a phase is made of stands in the files included; call.h has
// the loop over K steps.
#pragma once
#include "dropout.h"
#include "loss.h"
#include "product.h"
#include "rows.h"
#include "samples.h"
#if TASK == TRAIN
#include "update.h"
#endif

// ---- forward: net = below @ weight + bias, out = value(net) ----

template <int l>
FN v below_of(const Work &k, int first, int b, int i) {  // what goes into layer l
  constexpr int Ip = line(WIDTH[l]);
  if constexpr (l > 0) return get((DROPOUT >= 0 ? k.m.belows : k.m.outs) + outs_of(l - 1), b * Ip + i);
  else if constexpr (GATHER) return get(k.m.x, b * Ip + i);
  else return all<v>(inputs_of(k, first + b)[i]);
}

template <int l, int rows, bool training = true>
FN void forward(const Work &k, int first) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Op = line(O);
  const s *weight = k.m.row + weight_of(l), *bias = k.m.row + bias_of(l);
  s *nets = k.m.nets + outs_of(l), *outs = k.m.outs + outs_of(l);
  product<rows, O, I>(
      [&](int b, int i) { return below_of<l>(k, first, b, i); },
      [&](int i, int o) { return read(weight, i * Op + o); }, zero,
      [&](int b, int o, v net) {
        if (BIAS != NONE) net = net + (BIAS == NEURON ? read(bias, o) : get(bias, 0));
        v out = value<l>(net);
        if constexpr (WEIGHTED && training) {
          const v share = get(k.m.share, first + b);
          net = heard(share, net), out = heard(share, out);
        }
        if (KEEP_NETS) write(nets, b * Op + o, net);
        write(outs, b * Op + o, out);
      });
  if constexpr (l + 1 < L) {
    if constexpr (DROPOUT >= 0 && training) dropout<l, rows>(k, first);
    forward<l + 1, rows, training>(k, first);
  }
}

#if TASK == TRAIN

// ---- backward: delta = (delta above @ weight^T) * slope, grad_weight = below^T @ delta, grad_bias = sum of delta ----

template <int l, int rows, bool last>
FN void gradient(const Work &k, int first, const s *delta) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Op = line(O), W = weight_of(l), at_bias = bias_of(l);
  s *grad = k.m.grad, *partial = CHUNKED && BIAS == LAYER ? k.m.bias_sums + l * widest() : k.m.sums;
  product<I, O, rows>(
      [&](int i, int b) { return below_of<l>(k, first, b, i); }, [&](int b, int o) { return read(delta, b * Op + o); },
      [&](int i, int o) { return CHUNKED ? read(grad, W + i * Op + o) : all<v>(0); },
      [&](int i, int o, v sum) {
        if constexpr (last) finish<true>(k, W + i * Op + o, sum);
        else write(grad, W + i * Op + o, sum);
      });
  if constexpr (BIAS == NONE || !TRAIN_BIAS) return;
  product<1, O, rows>(
      [&](int, int) { return all<v>(1); }, [&](int b, int o) { return read(delta, b * Op + o); },
      [&](int, int o) { return CHUNKED ? read(BIAS == NEURON ? grad + at_bias : partial, o) : all<v>(0); },
      [&](int, int o, v sum) {
        if constexpr (BIAS == LAYER) write(partial, o, sum);
        else if constexpr (last) finish<false>(k, at_bias + o, sum);
        else write(grad, at_bias + o, sum);
      });
  if constexpr (BIAS == LAYER && last) {
    EACH(item, 1) {
      one sum = nought();
      for (int o = 0; o < O; o++) sum = sum + partial[o];
      finish<false>(k, at_bias, as_v(sum));
    }
    BARRIER
  }
}

// A weight (I, O) turned into (O, I), square by square.
template <int I, int O>
FN void turn([[maybe_unused]] s *turned, [[maybe_unused]] const s *weight) {
#if WIDE
  constexpr int down = pad(I) / NL, across = pad(O) / NL;
  EACH(square, down * across) {
    const int i = square % down * NL, o = square / down * NL;
    v r[NL];
    UNROLL for (int j = 0; j < NL; j++) r[j] = i + j < I ? read(weight, (i + j) * line(O) + o) : all<v>(0);
    transpose(r);
    UNROLL for (int j = 0; j < NL; j++)
      if (o + j < O) write(turned, (o + j) * line(I) + i, r[j]);
  }
  BARRIER
#endif
}

template <int l, int rows, bool last>
FN void backward(const Work &k, int first, s *delta, s *below) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Ip = line(I), Op = line(O);
  if constexpr (LAYERWISE) gradient<l, rows, last>(k, first, delta);
  if constexpr (l > 0) {
    const s *weight = k.m.row + weight_of(l);
    const int outs = outs_of(l - 1);
    s *turned = k.m.turned;
    if constexpr (NL > 1) turn<I, O>(turned, weight);
    product<rows, I, O>(
        [&](int b, int o) { return get(delta, b * Op + o); },
        [&](int o, int i) { return NL > 1 ? read(turned, o * Ip + i) : get(weight, i * Op + o); }, zero,
        [&](int b, int i, v sum) {
          int at = outs + b * Ip + i;
          if (DROPOUT >= 0) sum = sum * read(k.m.masks, at);
          v out = read(k.m.outs, at);
          v x = sum * slope<l - 1>(KEEP_NETS ? read(k.m.nets, at) : out, out);
          if constexpr (WEIGHTED) x = heard(get(k.m.share, first + b), x);
          write(below, b * Ip + i, x);
        });
  }
  if constexpr (!LAYERWISE) gradient<l, rows, last>(k, first, delta);
  if constexpr (l > 0) backward<l - 1, rows, last>(k, first, below, delta);
}

// ---- a step ----

template <int rows, bool last>
FN void chunk(const Work &k, int first) {
  gather<rows>(k, first);
  forward<0, rows>(k, first);
  loss_and_delta<rows>(k, first);
  backward<L - 1, rows, last>(k, first, k.m.delta, k.m.below);
}

// One step of every network of the group -> its loss, before the update.
FN one step(const Work &k) {
  constexpr int LAST = BATCH % CHUNK ? BATCH % CHUNK : CHUNK;
  weigh(k);
  const one more = penalty(k);
  if constexpr (CHUNKED) {
    EACH(at, P / NL) { write(k.m.grad, at * NL, all<v>(0)); }
    if constexpr (BIAS == LAYER) EACH(at, L * widest() / NL) { write(k.m.bias_sums, at * NL, all<v>(0)); }
    BARRIER
    for (int first = 0; first + LAST < BATCH; first += CHUNK) chunk<CHUNK, false>(k, first);
  }
  chunk<LAST, true>(k, BATCH - LAST);
  clip_norm(k);
  const one loss = summed<BATCH>([&](int b) { return one(k.m.error[b]); });
  BARRIER
  return loss + more;
}

#endif
