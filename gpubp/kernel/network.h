// READ THIS FIRST. One step of training, as the tutorial takes it: forward, loss, backward, update. The delta below is
// computed from the old weights, or from the new ones where LAYERWISE. Weights are updated where their gradient is
// complete: in gradient() for the last chunk of the batch, or after the backward pass in apply_gradients(), where
// GRADIENTS_IN_REGISTERS, and in clip_norm(). A step trains one network, or a group of networks side by side.
//
// The twin of backprop.py and engines/block.py: the same words (net, out, delta), each phase below its forward twin.
// Names in capitals are constants of the topology and the training; example.h has those of the tutorial's network, with
// a line on each, and behind them its rules (value, slope, loss_value, loss_slope, prepare, update), which
// engines/translate.py prints from ACTIVATIONS, LOSSES, OPTIMIZERS and SCHEDULES. call.h has the loop over steps.
//
// The source runs on four machines. Each is a file of machines/, and defines what all other files are written in:
//
//   v                  what is computed with: an operation on v is done in all its lanes at once
//   entry              an element of the arrays in Memory: of a matrix, entry (i, j)
//   per_network        one number of each network, such as its loss, of which every thread has a copy; as_v: of it, a v
//   ENTRIES_PER_V      entries that make a v; NETWORKS: those of a group; DOUBLE_LANES: of them, in a float64 register
//   read, write        the v that begins at entry j; broadcast: entry j for all lanes (if an entry is a v: the same)
//   PARALLEL_FOR       the independent items of a phase, divided among the threads that share a network, if it has some
//   BARRIER            the end of a phase, where those threads wait for each other
//   product            the matrix product (product.h), in tiles that suit the machine; it ends with a BARRIER
//   copy_in, copy_out  rows of Job into Memory, and back; gather_samples: samples into Memory.x and y
//   launch             of GPUs: which thread trains which network; count_diverged, transpose_weight: see their uses
//
//                      a lane is                       v                 entry         threads that share a network
//   cpu_networks.h     one of NETWORKS networks        NETWORKS numbers  a v           one
//   cpu_outputs.h      an output of the network        VECTOR numbers    one number    one, or a TEAM
//   gpu_thread.h       the network                     one number        a v           one
//   gpu_block.h        the network                     one number        a v           a block, or a part of a warp
//     LANES_ARE_OUTPUTS  an output of the network      16 bytes          one number    a block
//     STREAMED           the same, and the matrices are in global memory, of which a block copies tiles
//
// GRADIENTS_IN_REGISTERS holds where LANES_ARE_OUTPUTS in a block that is not STREAMED.
//
// simd.h has the operations on v (splat: one number in every lane; fma_) and FN, INLINE and UNROLL. Every sum has one
// fixed order: over k in a product, over samples, over the outputs of a sample, down and across a gradient. So all
// machines give the same bits.
#pragma once
#include "dropout.h"
#include "loss.h"
#include "samples.h"
#if TASK == TRAIN
#include "update.h"
#endif

// Layer l has I inputs and O outputs. A batch goes through the network in chunks: `start` is a chunk's first sample in
// the batch, `samples` how many it has.

// ---- forward: net = below @ weight + bias, out = value(net) ----

template <int l>
FN auto below_of(const Context &ctx, int start) {  // (samples, I): the inputs of layer l
  if constexpr (l > 0) return Matrix<PITCH[l]>{(DROPOUT >= 0 ? ctx.mem.belows : ctx.mem.outs) + OUTS_AT[l - 1]};
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
    return BIAS == NONE ? splat<v>(0) : BIAS == NEURON ? read(bias, o) : broadcast(bias, 0);
  };
  auto finish = [&](int b, int o, v net, v bias) {
    if (BIAS != NONE) net = net + bias;
    v out = value<l>(net);
    if constexpr (WEIGHTED && training) {
      const v share = broadcast(ctx.mem.share, start + b);
      net = zero_if_uncounted(share, net), out = zero_if_uncounted(share, out);
    }
    if (KEEP_NETS) write(nets, b * O_pitch + o, net);
    write(outs, b * O_pitch + o, out);
  };
  product<samples, O, I>(below_of<l>(ctx, start), weight, Zeros(), for_each_sum(bias_of, finish));
  if constexpr (l + 1 < LAYERS) {
    if constexpr (DROPOUT >= 0 && training) dropout<l, samples>(ctx, start);
    forward<l + 1, samples, training>(ctx, start);
  }
}

#if TASK == TRAIN

// ---- backward: delta = (delta above @ weight^T) * slope, grad_weight = below^T @ delta, grad_bias = sum of delta ----

template <int pitch>
FN auto earlier_chunks(const entry *sums) {  // the gradient summed over the chunks before this one
  if constexpr (CHUNKED) return Matrix<pitch>{sums};
  else return Zeros();
}

// Where GRADIENTS_IN_REGISTERS: the gradients of layers 0 to l. Each thread keeps the sums of its tiles through all
// chunks of a step.
template <int l>
struct Gradients : Gradients<l - 1> {
#if GRADIENTS_IN_REGISTERS
  Sums<WIDTH[l], WIDTH[l + 1], CHUNK, true> weight;
  Sums<1, WIDTH[l + 1], CHUNK, true> bias;
#endif
};
template <>
struct Gradients<-1> {};
template <int l>
FN void set_to_zero([[maybe_unused]] Gradients<l> &gradients) {
  if constexpr (GRADIENTS_IN_REGISTERS) {
    gradients.weight.set_to_zero();
    gradients.bias.set_to_zero();
    if constexpr (l > 0) set_to_zero<l - 1>(gradients);
  }
}

// If a layer has one bias, its gradient is also a sum over the outputs.
template <int l>
FN void apply_layer_bias(const Context &ctx, const entry *delta_sums) {
  PARALLEL_FOR(item, 1) {
    per_network sum = splat<per_network>(0);
    for (int o = 0; o < WIDTH[l + 1]; o++) sum = sum + delta_sums[o];
    apply_gradient<false>(ctx, BIAS_AT[l], as_v(sum));
  }
  BARRIER
}

// The gradients of layer l are complete: each thread updates the parameters of its tiles.
template <int l>
FN void apply_layer(const Context &ctx, Gradients<l> &gradients) {
  gradients.weight.for_each([&](int i, int o, v sum) {
    apply_gradient<true>(ctx, WEIGHT_AT[l] + i * PITCH[l + 1] + o, sum);
  });
  if constexpr (TRAIN_BIAS)
    gradients.bias.for_each([&](int, int o, v sum) {
      if constexpr (BIAS == LAYER) write(ctx.mem.column_sums, o, sum);
      else apply_gradient<false>(ctx, BIAS_AT[l] + o, sum);
    });
  BARRIER
  if constexpr (TRAIN_BIAS && BIAS == LAYER) apply_layer_bias<l>(ctx, ctx.mem.column_sums);
}

// The gradients of layer l from its deltas: sums over samples, whose shares of the loss (1 / BATCH) are in the deltas.
// In the last chunk (update_now) they are complete, and the thread that has a sum updates its parameter; before, they
// wait in Memory.grad. Where GRADIENTS_IN_REGISTERS, they stay in the threads until apply_gradients().
template <int l, int samples, bool update_now>
FN void gradient(const Context &ctx, [[maybe_unused]] Gradients<l> &gradients, int start, const entry *deltas) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], O_pitch = PITCH[l + 1];
  constexpr int weight_at = WEIGHT_AT[l], bias_at = BIAS_AT[l];
  const Matrix<O_pitch> delta = {deltas};
  const auto below = transposed(below_of<l>(ctx, start));
  if constexpr (GRADIENTS_IN_REGISTERS) {
    gradients.weight.template add<samples>(below, delta);
    if constexpr (TRAIN_BIAS) gradients.bias.template add<samples>(Ones(), delta);
    BARRIER  // before backward() overwrites the outs below
    if constexpr (LAYERWISE) apply_layer<l>(ctx, gradients);
  } else {
    entry *grad = ctx.mem.grad;
    const auto earlier = earlier_chunks<O_pitch>(grad + weight_at);
    auto numbers_of = [&](int i, int o) { return numbers_at(ctx, weight_at + i * O_pitch + o); };
    auto apply = [&](int i, int o, v sum, const Numbers &x) {
      if constexpr (update_now) apply_gradient<true>(ctx, weight_at + i * O_pitch + o, sum, x);
      else write(grad, weight_at + i * O_pitch + o, sum);
    };
    product<I, O, samples>(below, delta, earlier, for_each_sum(numbers_of, apply));
    if constexpr (!TRAIN_BIAS) return;
    entry *delta_sums = CHUNKED && BIAS == LAYER ? ctx.mem.delta_sums + l * MAX_PITCH : ctx.mem.column_sums;
    const auto earlier_biases = earlier_chunks<0>(BIAS == NEURON ? grad + bias_at : delta_sums);
    product<1, O, samples>(Ones(), delta, earlier_biases, for_each_sum([&](int, int o, v sum) {
      if constexpr (BIAS == LAYER) write(delta_sums, o, sum);
      else if constexpr (update_now) apply_gradient<false>(ctx, bias_at + o, sum);
      else write(grad, bias_at + o, sum);
    }));
    if constexpr (BIAS == LAYER && update_now) apply_layer_bias<l>(ctx, delta_sums);
  }
}
template <int l>
FN void apply_gradients(const Context &ctx, [[maybe_unused]] Gradients<l> &gradients) {
  if constexpr (GRADIENTS_IN_REGISTERS && !LAYERWISE) {
    apply_layer<l>(ctx, gradients);
    if constexpr (l > 0) apply_gradients<l - 1>(ctx, gradients);
  }
}

template <int l>
FN void transpose_weight(entry *to, const entry *weight);  // of machines/cpu_outputs.h alone
// (O, I): a view of the weight or, on a CPU where a v is several entries, which are neighbours in memory, a transposed
// copy.
template <int l>
FN auto transposed_weight(const Context &ctx) {
  const entry *weight = ctx.mem.params + WEIGHT_AT[l];
  if constexpr (ENTRIES_PER_V == 1 || THREADS) return transposed(Matrix<PITCH[l + 1]>{weight});
  else return transpose_weight<l>(ctx.mem.transposed, weight), Matrix<PITCH[l]>{ctx.mem.transposed};
}

struct Unit {  // of a layer and a sample
  v out, net, mask;
};
// Layer l and those below it. delta: (samples, O) of its outputs; delta_below: where to write that of its inputs, the
// outputs of the layer below (samples, I). On the way down the two arrays change places. Where GRADIENTS_IN_REGISTERS
// the deltas overwrite the outs below: gradient() has read them, and each thread reads an out just before it writes its
// delta.
template <int l, int samples, bool update_now>
FN void backward(const Context &ctx, Gradients<l> &gradients, int start, entry *delta, entry *delta_below) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], I_pitch = PITCH[l];
  constexpr bool gradient_first = LAYERWISE || GRADIENTS_IN_REGISTERS;
  if constexpr (gradient_first) gradient<l, samples, update_now>(ctx, gradients, start, delta);
  if constexpr (l > 0) {  // with the old weight, unless LAYERWISE: in the last chunk gradient() updates it
    const int outs_at = OUTS_AT[l - 1];
    const auto weight = transposed_weight<l>(ctx);
    if constexpr (GRADIENTS_IN_REGISTERS) delta_below = ctx.mem.outs + outs_at;
    auto unit_below = [&](int b, int i) {
      const int at = outs_at + b * I_pitch + i;
      const v out = read(ctx.mem.outs, at);
      return Unit{out, KEEP_NETS ? read(ctx.mem.nets, at) : out, DROPOUT >= 0 ? read(ctx.mem.masks, at) : out};
    };
    auto finish = [&](int b, int i, v sum, const Unit &below) {
      if (DROPOUT >= 0) sum = sum * below.mask;
      v x = sum * slope<l - 1>(below.net, below.out);
      if constexpr (WEIGHTED) x = zero_if_uncounted(broadcast(ctx.mem.share, start + b), x);
      write(delta_below, b * I_pitch + i, x);
    };
    product<samples, I, O>(Matrix<PITCH[l + 1]>{delta}, weight, Zeros(), for_each_sum(unit_below, finish));
  }
  if constexpr (!gradient_first) gradient<l, samples, update_now>(ctx, gradients, start, delta);
  if constexpr (l > 0) backward<l - 1, samples, update_now>(ctx, gradients, start, delta_below, delta);
}

// ---- a step ----

template <int samples, bool update_now>
FN void chunk(const Context &ctx, Gradients<LAYERS - 1> &gradients, int start) {
  gather<samples>(ctx, start);
  forward<0, samples>(ctx, start);
  loss_and_delta<samples>(ctx, start);
  backward<LAYERS - 1, samples, update_now>(ctx, gradients, start, ctx.mem.delta, ctx.mem.delta_below);
}

// One step of every network of the group -> its loss, before the update.
FN per_network train_step(const Context &ctx) {
  constexpr int LAST_CHUNK = BATCH % CHUNK ? BATCH % CHUNK : CHUNK;  // samples of the last one
  constexpr bool all_alike = GRADIENTS_IN_REGISTERS && LAST_CHUNK == CHUNK;  // and no chunk updates: one instance
  weigh_samples(ctx);
  const per_network penalties = penalty(ctx);
  Gradients<LAYERS - 1> gradients;
  set_to_zero<LAYERS - 1>(gradients);
  if constexpr (CHUNKED && !GRADIENTS_IN_REGISTERS) {
    PARALLEL_FOR(item, PADDED_P / ENTRIES_PER_V) { write(ctx.mem.grad, item * ENTRIES_PER_V, splat<v>(0)); }
    if constexpr (BIAS == LAYER)
      PARALLEL_FOR(item, LAYERS * MAX_PITCH / ENTRIES_PER_V) {
        write(ctx.mem.delta_sums, item * ENTRIES_PER_V, splat<v>(0));
      }
    BARRIER
  }
  if constexpr (CHUNKED)
    NO_UNROLL for (int start = 0; start + (all_alike ? 0 : LAST_CHUNK) < BATCH; start += CHUNK)
      chunk<CHUNK, false>(ctx, gradients, start);
  if constexpr (!CHUNKED || !all_alike) chunk<LAST_CHUNK, true>(ctx, gradients, BATCH - LAST_CHUNK);
  apply_gradients<LAYERS - 1>(ctx, gradients);
  clip_norm(ctx);
  const per_network loss = blocked_sum<BATCH>([&](int b) { return per_network(ctx.mem.error[b]); });
  BARRIER
  return loss + penalties;
}

#endif
