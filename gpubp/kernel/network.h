// READ THIS FIRST, and the table in machine.h. One step of training, as the tutorial takes it: forward, loss, backward,
// update. The delta below is computed from the old weights, or the new ones where LAYERWISE. A weight is updated in
// backward(), as soon as its gradient is complete, or after backward() where gradients are held (gradients.h); with
// HAS_CLIP_NORM, once all gradients are complete. A step trains one network or a group of networks side by side.
//
// The twin of backprop.py and engines/block.py: the same words (net, out, delta), each phase below its forward twin.
// Names in capitals are constants of the topology and the training; example.h has those of the tutorial's network, with
// a line on each, and behind them its rules (value, slope, loss_value, loss_slope, prepare, optimizer), which
// engines/translate.py prints from ACTIVATIONS, LOSSES, OPTIMIZERS and SCHEDULES. product.h has the matrix product,
// gradients.h and update.h the way from its sums to the weights, call.h the loop over steps.
//
// What a lane is differs between machines: machine.h. simd.h has the operations on v (splat: one number in every lane;
// fma_) and FN, INLINE and UNROLL. Every sum has one fixed order: over k in a product, over samples, over the outputs
// of a sample, down and across a gradient. So all machines give the same bits, unless TF32 (gpu_tensor.h).
#pragma once
#include "dropout.h"
#include "loss.h"
#include "samples.h"
#if TASK == TRAIN
#include "gradients.h"
#endif

// Layer l has I inputs and O outputs. A batch goes through the network in chunks: `start` is a chunk's first sample in
// the batch, `samples` how many it has.

// ---- forward: net = below @ weight + bias, out = value(net) ----

template <class L>
FN auto below_of(const Context &ctx, L l, int start) {  // (samples, I): the inputs of layer l
  const entry *outs = HAS_DROPOUT ? ctx.mem.dropped : ctx.mem.outs;
#if GENERAL
  return matrix(PITCH[l], l > 0 ? outs + OUTS_AT[l - 1] : ctx.mem.x);
#else
  if constexpr (l > 0) return matrix(OF(PITCH, l), outs + OUTS_AT[l - 1]);
  else if constexpr (GATHER) return matrix(OF(PITCH, l), ctx.mem.x);
  else return Inputs{ctx, start};
#endif
}

template <bool training, class L, class Samples>
FN void forward_layer(const Context &ctx, L l, Samples samples, int start) {
  const auto I = OF(WIDTH, l);
  const auto O = OF(WIDTH, above(l));
  const auto O_pitch = OF(PITCH, above(l));
  const auto weight = matrix(O_pitch, ctx.mem.params + OF(WEIGHT_AT, l));
  const entry *bias = ctx.mem.params + OF(BIAS_AT, l);
  entry *nets = ctx.mem.nets + OF(OUTS_AT, l), *outs = ctx.mem.outs + OF(OUTS_AT, l);
  auto bias_of = [&](int, int o) {
    return BIAS_KIND == NO_BIAS ? splat<v>(0) : BIAS_KIND == PER_NEURON ? read(bias, o) : broadcast(bias, 0);
  };
  auto finish = [&](int b, int o, v net, v bias) {
    if (BIAS_KIND != NO_BIAS) net = net + bias;
    v out = value(l, net);
    if constexpr (WEIGHTED && training) {
      const v share = broadcast(ctx.mem.share, start + b);
      net = zero_if_uncounted(share, net), out = zero_if_uncounted(share, out);
    }
    if (KEEP_NETS) write_to(O_pitch, nets, b, o, net);
    write_to(O_pitch, outs, b, o, out);
  };
  product(samples, O, I, below_of(ctx, l, start), weight, Zeros(), for_each_sum(bias_of, finish));
  if constexpr (HAS_DROPOUT && training)
    IF (l + 1 < LAYERS) dropout(ctx, l, samples, start);
}
template <bool training, class Samples>
FN void forward(const Context &ctx, Samples samples, int start) {
  for_each_layer([&](auto l) { forward_layer<training>(ctx, l, samples, start); });
}

#if TASK == TRAIN

// ---- backward: delta = (delta above @ weight^T) * slope, grad_weight = below^T @ delta, grad_bias = sum of delta ----

template <class L, class Samples, class Last>
FN void gradient(const Context &ctx, Gradients &gradients, L l, Samples samples, Last last, int start, entry *delta) {
  const auto below = transposed(below_of(ctx, l, start));
  gradients.add_chunk(ctx, l, samples, last, below, matrix(OF(PITCH, above(l)), delta));
}

template <class L>
FN void transpose_weight(L l, entry *to, const entry *weight);  // of machines/cpu_outputs.h alone
// (O, I): a view of the weight or, on a CPU where a v is several neighbouring entries, a transposed copy.
template <class L>
FN auto transposed_weight(const Context &ctx, L l) {
  const entry *weight = ctx.mem.params + OF(WEIGHT_AT, l);
  if constexpr (ENTRIES_PER_V == 1 || ON_GPU) return transposed(matrix(OF(PITCH, above(l)), weight));
  else return transpose_weight(l, ctx.mem.transposed, weight), matrix(OF(PITCH, l), ctx.mem.transposed);
}

struct Unit {  // of a layer, for one sample
  v out, net, mask;
};
// The gradients of layer l, and the delta below. delta: (samples, O) of its outputs; to: where to write that of its
// inputs, the outputs of the layer below (samples, I).
template <class L, class Samples, class Last>
FN void backward_layer(
    const Context &ctx, Gradients &gradients, L l, Samples samples, Last last, int start, entry *delta, entry *to) {
  constexpr bool gradient_first = LAYERWISE || Gradients::held;
  if constexpr (gradient_first) gradient(ctx, gradients, l, samples, last, start, delta);
  IF (l > 0) {  // the weight is still the old one, unless LAYERWISE: then gradient() has updated it above
    const auto I_pitch = OF(PITCH, l);
    const auto weight = transposed_weight(ctx, l);
    auto unit_below = [&](int b, int i) {
      auto below = [&](const entry *array) { return matrix(I_pitch, array + OF(OUTS_AT, under(l))).read(b, i); };
      const v out = below(ctx.mem.outs);
      return Unit{out, KEEP_NETS ? below(ctx.mem.nets) : out, HAS_DROPOUT ? below(ctx.mem.masks) : out};
    };
    auto finish = [&](int b, int i, v sum, const Unit &unit) {
      if (HAS_DROPOUT) sum = sum * unit.mask;
      v x = sum * slope(under(l), unit.net, unit.out);
      if constexpr (WEIGHTED) x = zero_if_uncounted(broadcast(ctx.mem.share, start + b), x);
      write_to(I_pitch, to, b, i, x);
    };
    product(samples, OF(WIDTH, l), OF(WIDTH, above(l)), matrix(OF(PITCH, above(l)), delta), weight, Zeros(),
            for_each_sum(unit_below, finish));
  }
  if constexpr (!gradient_first) gradient(ctx, gradients, l, samples, last, start, delta);
}
// On the way down two arrays take turns as delta and the one below. Where gradients are held, the deltas overwrite the
// outs below instead: add_chunk() has read them, and each thread reads an out just before it writes its delta.
template <class Samples, class Last>
FN void backward(const Context &ctx, Gradients &gradients, Samples samples, Last last, int start) {
  entry *delta = ctx.mem.delta, *other = ctx.mem.delta_below;
  for_each_layer_down([&](auto l) {
    entry *const to = Gradients::held ? ctx.mem.outs + OF(OUTS_AT, under(l)) : other;
    backward_layer(ctx, gradients, l, samples, last, start, delta, to);
    other = delta, delta = to;
  });
}

// ---- a step ----

template <class Samples, class Last>
FN void chunk(const Context &ctx, Gradients &gradients, Samples samples, Last last, int start) {
  gather(ctx, samples, start);
  forward<true>(ctx, samples, start);
  loss_and_delta<true>(ctx, samples, start);
  backward(ctx, gradients, samples, last, start);
}

// One step of every network of the group -> its loss, before the update.
FN per_network train_step(const Context &ctx) {
  weigh_samples(ctx);
  const per_network penalties = penalty(ctx);
  Gradients gradients;
  gradients.begin(ctx);
#if GENERAL
  for (int start = 0; start < BATCH; start += CHUNK)
    chunk(ctx, gradients, min_of(CHUNK, BATCH - start), start + CHUNK >= BATCH, start);
#else
  constexpr int LAST_CHUNK = BATCH % CHUNK ? BATCH % CHUNK : CHUNK;  // its samples
  constexpr bool one_instance = CHUNKED && Gradients::held && LAST_CHUNK == CHUNK;  // held: `last` changes nothing
  constexpr int in_loop = one_instance ? BATCH : BATCH - LAST_CHUNK;                // samples
  if constexpr (in_loop > 0)
    NO_UNROLL for (int start = 0; start < in_loop; start += CHUNK)
      chunk(ctx, gradients, constant<CHUNK>(), constant<false>(), start);
  if constexpr (in_loop < BATCH) chunk(ctx, gradients, constant<LAST_CHUNK>(), constant<true>(), in_loop);
#endif
  gradients.update_held(ctx);  // in GPU_WIDE; elsewhere backward() has updated each layer
  clip_norm(ctx);
  const per_network loss = blocked_sum(SIZE(BATCH), [&](int b) { return per_network(ctx.mem.error[b]); });
  BARRIER
  return loss + penalties;
}

#endif
