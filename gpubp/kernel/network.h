// READ THIS FIRST. A group of networks side by side, or one network, trained for K steps: forward, loss, and backward,
// where a weight changes as soon as its gradient is summed and the delta below has been computed from the old one.
//
// The twin of backprop.py and engines/block.py: the same words (net, out, delta), each phase below its forward twin.
// machines/ say what a lane is; the rules (value, slope, loss_value, loss_slope, prepare, update) are rows of
// ACTIVATIONS, LOSSES, OPTIMIZERS and SCHEDULES, translated by engines/translate.py; the constants in capitals describe
// the network and its training: example.h has those of the tutorial's.
// Every sum has one fixed order: over k in a product, over samples, over the outputs of a sample, down and across a
// gradient. So all machines give the same bits. call.h has the loop over K steps.
#pragma once
#include "dropout.h"
#include "loss.h"
#include "samples.h"
#if TASK == TRAIN
#include "update.h"
#endif

// ---- forward: net = below @ weight + bias, out = value(net) ----

template <int l>
FN auto below_of(const Work &k, int first) {  // what goes into layer l
  if constexpr (l > 0) return Matrix<PITCH[l]>{(DROPOUT >= 0 ? k.m.belows : k.m.outs) + OUTS_AT[l - 1]};
  else if constexpr (GATHER) return Matrix<PITCH[0]>{k.m.x};
  else return Inputs{k, first};
}

template <int l, int rows, bool training = true>
FN void forward(const Work &k, int first) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Op = PITCH[l + 1];
  const Matrix<Op> weight = {k.m.row + WEIGHT_AT[l]};
  const s *bias = k.m.row + BIAS_AT[l];
  s *nets = k.m.nets + OUTS_AT[l], *outs = k.m.outs + OUTS_AT[l];
  product<rows, O, I>(below_of<l>(k, first), weight, Zeros(), each([&](int b, int o, v net) {
    if (BIAS != NONE) net = net + (BIAS == NEURON ? read(bias, o) : get(bias, 0));
    v out = value<l>(net);
    if constexpr (WEIGHTED && training) {
      const v share = get(k.m.share, first + b);
      net = heard(share, net), out = heard(share, out);
    }
    if (KEEP_NETS) write(nets, b * Op + o, net);
    write(outs, b * Op + o, out);
  }));
  if constexpr (l + 1 < L) {
    if constexpr (DROPOUT >= 0 && training) dropout<l, rows>(k, first);
    forward<l + 1, rows, training>(k, first);
  }
}

#if TASK == TRAIN

// ---- backward: delta = (delta above @ weight^T) * slope, grad_weight = below^T @ delta, grad_bias = sum of delta ----

template <int pitch>
FN auto so_far(const s *sums) {  // the sums over earlier chunks
  if constexpr (CHUNKED) return Matrix<pitch>{sums};
  else return Zeros();
}

template <int l, int rows, bool last>
FN void gradient(const Work &k, int first, const s *above) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Op = PITCH[l + 1], W = WEIGHT_AT[l], at_bias = BIAS_AT[l];
  const Matrix<Op> delta = {above};
  s *grad = k.m.grad, *partial = CHUNKED && BIAS == LAYER ? k.m.bias_sums + l * WIDEST : k.m.sums;
  product<I, O, rows>(turned(below_of<l>(k, first)), delta, so_far<Op>(grad + W), each([&](int i, int o, v sum) {
    if constexpr (last) finish<true>(k, W + i * Op + o, sum);
    else write(grad, W + i * Op + o, sum);
  }));
  if constexpr (BIAS == NONE || !TRAIN_BIAS) return;
  const s *before = BIAS == NEURON ? grad + at_bias : partial;
  product<1, O, rows>(Ones(), delta, so_far<0>(before), each([&](int, int o, v sum) {
    if constexpr (BIAS == LAYER) write(partial, o, sum);
    else if constexpr (last) finish<false>(k, at_bias + o, sum);
    else write(grad, at_bias + o, sum);
  }));
  if constexpr (BIAS == LAYER && last) {
    EACH(item, 1) {
      one sum = nought();
      for (int o = 0; o < O; o++) sum = sum + partial[o];
      finish<false>(k, at_bias, as_v(sum));
    }
    BARRIER
  }
}

template <int l>
FN void turn(s *turned, const s *weight);  // of machines/outputs.h alone
template <int l>
FN auto weight_turned(const Work &k) {  // (O, I), with lanes along its inputs
  const s *weight = k.m.row + WEIGHT_AT[l];
  if constexpr (NL == 1) return turned(Matrix<PITCH[l + 1]>{weight});
  else return turn<l>(k.m.turned, weight), Matrix<PITCH[l]>{k.m.turned};
}

template <int l, int rows, bool last>
FN void backward(const Work &k, int first, s *delta, s *below) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Ip = PITCH[l];
  if constexpr (LAYERWISE) gradient<l, rows, last>(k, first, delta);
  if constexpr (l > 0) {  // from the old weight, unless LAYERWISE: gradient() changes it in the last chunk
    const int outs = OUTS_AT[l - 1];
    const auto weight = weight_turned<l>(k);
    product<rows, I, O>(Matrix<PITCH[l + 1]>{delta}, weight, Zeros(), each([&](int b, int i, v sum) {
      const int at = outs + b * Ip + i;
      if (DROPOUT >= 0) sum = sum * read(k.m.masks, at);
      v out = read(k.m.outs, at);
      v x = sum * slope<l - 1>(KEEP_NETS ? read(k.m.nets, at) : out, out);
      if constexpr (WEIGHTED) x = heard(get(k.m.share, first + b), x);
      write(below, b * Ip + i, x);
    }));
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
    if constexpr (BIAS == LAYER) EACH(at, L * WIDEST / NL) { write(k.m.bias_sums, at * NL, all<v>(0)); }
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
