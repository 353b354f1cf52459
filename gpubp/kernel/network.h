// READ THIS FIRST, and the table in machine.h. One step of training, as the tutorial takes it: forward, loss, backward,
// update. The delta below is computed from the old weights, or the new ones where LAYERWISE. A weight is updated in
// backward(), as soon as its gradient is complete, or after it where gradients are held (gradients.h); with
// HAS_CLIP_NORM, after all gradients. A step trains one network or a group of networks side by side.
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

template <int l>
FN auto below_of(const Context &ctx, int start) {  // (samples, I): the inputs of layer l
  if constexpr (l > 0) return Matrix<PITCH[l]>{(HAS_DROPOUT ? ctx.mem.dropped : ctx.mem.outs) + OUTS_AT[l - 1]};
  else if constexpr (GATHER) return Matrix<PITCH[0]>{ctx.mem.x};
  else return Inputs{ctx, start};
}

template <int l, int samples, bool training = true>
FN void forward(const Context &ctx, int start) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], O_pitch = PITCH[l + 1];
  const Matrix<O_pitch> weight = {ctx.mem.params + WEIGHT_AT[l]};
  const entry *bias = ctx.mem.params + BIAS_AT[l];
  entry *nets = ctx.mem.nets + OUTS_AT[l], *outs = ctx.mem.outs + OUTS_AT[l];
  auto bias_of = [&](int, int o) {
    return BIAS_KIND == NO_BIAS ? splat<v>(0) : BIAS_KIND == PER_NEURON ? read(bias, o) : broadcast(bias, 0);
  };
  auto finish = [&](int b, int o, v net, v bias) {
    if (BIAS_KIND != NO_BIAS) net = net + bias;
    v out = value<l>(net);
    if constexpr (WEIGHTED && training) {
      const v share = broadcast(ctx.mem.share, start + b);
      net = zero_if_uncounted(share, net), out = zero_if_uncounted(share, out);
    }
    if (KEEP_NETS) write_to<O_pitch>(nets, b, o, net);
    write_to<O_pitch>(outs, b, o, out);
  };
  product<samples, O, I>(below_of<l>(ctx, start), weight, Zeros(), for_each_sum(bias_of, finish));
  if constexpr (l + 1 < LAYERS) {
    if constexpr (HAS_DROPOUT && training) dropout<l, samples>(ctx, start);
    forward<l + 1, samples, training>(ctx, start);
  }
}

#if TASK == TRAIN

// ---- backward: delta = (delta above @ weight^T) * slope, grad_weight = below^T @ delta, grad_bias = sum of delta ----

template <int l, int samples, bool last>
FN void gradient(const Context &ctx, Gradients &gradients, int start, const entry *delta) {
  gradients.add_chunk<l, samples, last>(ctx, transposed(below_of<l>(ctx, start)), Matrix<PITCH[l + 1]>{delta});
}

template <int l>
FN void transpose_weight(entry *to, const entry *weight);  // of machines/cpu_outputs.h alone
// (O, I): a view of the weight or, on a CPU where a v is several neighbouring entries, a transposed copy.
template <int l>
FN auto transposed_weight(const Context &ctx) {
  const entry *weight = ctx.mem.params + WEIGHT_AT[l];
  if constexpr (ENTRIES_PER_V == 1 || ON_GPU) return transposed(Matrix<PITCH[l + 1]>{weight});
  else return transpose_weight<l>(ctx.mem.transposed, weight), Matrix<PITCH[l]>{ctx.mem.transposed};
}

struct Unit {  // of a layer, for one sample
  v out, net, mask;
};
// Layer l and those below it. delta: (samples, O) of its outputs; delta_below: where to write that of its inputs, the
// outputs of the layer below (samples, I). On the way down the two arrays take turns. Where gradients are held, the
// deltas overwrite the outs below instead: add_chunk() has read them, and each thread reads an out just before it
// writes its delta.
template <int l, int samples, bool last>
FN void backward(const Context &ctx, Gradients &gradients, int start, entry *delta, entry *delta_below) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], I_pitch = PITCH[l], outs_at = OUTS_AT[max_of(l - 1, 0)];
  constexpr bool gradient_first = LAYERWISE || Gradients::held;
  entry *const to = Gradients::held ? ctx.mem.outs + outs_at : delta_below;
  if constexpr (gradient_first) gradient<l, samples, last>(ctx, gradients, start, delta);
  if constexpr (l > 0) {  // the weight is still the old one, unless LAYERWISE: then gradient() has updated it above
    const auto weight = transposed_weight<l>(ctx);
    auto unit_below = [&](int b, int i) {
      auto below = [&](const entry *array) { return Matrix<I_pitch>{array + outs_at}.read(b, i); };
      const v out = below(ctx.mem.outs);
      return Unit{out, KEEP_NETS ? below(ctx.mem.nets) : out, HAS_DROPOUT ? below(ctx.mem.masks) : out};
    };
    auto finish = [&](int b, int i, v sum, const Unit &unit) {
      if (HAS_DROPOUT) sum = sum * unit.mask;
      v x = sum * slope<l - 1>(unit.net, unit.out);
      if constexpr (WEIGHTED) x = zero_if_uncounted(broadcast(ctx.mem.share, start + b), x);
      write_to<I_pitch>(to, b, i, x);
    };
    product<samples, I, O>(Matrix<PITCH[l + 1]>{delta}, weight, Zeros(), for_each_sum(unit_below, finish));
  }
  if constexpr (!gradient_first) gradient<l, samples, last>(ctx, gradients, start, delta);
  if constexpr (l > 0) backward<l - 1, samples, last>(ctx, gradients, start, to, delta);
}

// ---- a step ----

template <int samples, bool last>
FN void chunk(const Context &ctx, Gradients &gradients, int start) {
  gather<samples>(ctx, start);
  forward<0, samples>(ctx, start);
  loss_and_delta<samples>(ctx, start);
  backward<LAYERS - 1, samples, last>(ctx, gradients, start, ctx.mem.delta, ctx.mem.delta_below);
}

// One step of every network of the group -> its loss, before the update.
FN per_network train_step(const Context &ctx) {
  constexpr int LAST_CHUNK = BATCH % CHUNK ? BATCH % CHUNK : CHUNK;  // its samples
  constexpr bool one_instance = CHUNKED && Gradients::held && LAST_CHUNK == CHUNK;  // held: `last` changes nothing
  constexpr int in_loop = one_instance ? BATCH : BATCH - LAST_CHUNK;                // samples
  weigh_samples(ctx);
  const per_network penalties = penalty(ctx);
  Gradients gradients;
  gradients.begin(ctx);
  if constexpr (in_loop > 0)
    NO_UNROLL for (int start = 0; start < in_loop; start += CHUNK) chunk<CHUNK, false>(ctx, gradients, start);
  if constexpr (in_loop < BATCH) chunk<LAST_CHUNK, true>(ctx, gradients, in_loop);
  gradients.update_held(ctx);  // in GPU_WIDE; elsewhere backward() has updated each layer
  clip_norm(ctx);
  const per_network loss = blocked_sum<BATCH>([&](int b) { return per_network(ctx.mem.error[b]); });
  BARRIER
  return loss + penalties;
}

#endif
