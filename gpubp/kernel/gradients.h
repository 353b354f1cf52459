// The gradients of a step: sums over the samples of its batch, in their order; the deltas contain each sample's share
// of the loss (loss.h). A layout computes them tile by tile, or holds them for the step; for each there is a Gradients.
// begin() comes before the first chunk of a batch. add_chunk() adds a chunk's part to the gradients of layer l, below
// (I, samples) @ delta (samples, O) and the sum of delta; tile by tile, the `last` chunk updates the layer, too.
// update_held() comes after the last chunk, and updates all layers if gradients are held.
#pragma once
#include "update.h"

// If a layer has one bias, its gradient is also a sum over the outputs.
template <class L>
FN void apply_layer_bias(const Context &ctx, L l, const entry *delta_sums) {
  PARALLEL_FOR(item, 1) {
    per_network sum = splat<per_network>(0);
    for (int o = 0; o < OF(WIDTH, above(l)); o++) sum = sum + delta_sums[o];
    apply_gradient<false>(ctx, (int)OF(BIAS_AT, l), as_v(sum));
  }
  BARRIER
}

#if LAYOUT != GPU_WIDE

// Tile by tile: a thread has the sums of one tile in registers. In the last chunk they are complete and update their
// parameters; in the others they go to Memory.grad, where the next chunk's begin.
struct Gradients {
  static constexpr bool held = false;

  INLINE void begin(const Context &ctx) {
    if constexpr (CHUNKED) {
      PARALLEL_FOR(item, PADDED_P / ENTRIES_PER_V) { write(ctx.mem.grad, item * ENTRIES_PER_V, splat<v>(0)); }
      if constexpr (BIAS_KIND == PER_LAYER)
        PARALLEL_FOR(item, LAYERS * MAX_PITCH / ENTRIES_PER_V) {
          write(ctx.mem.delta_sums, item * ENTRIES_PER_V, splat<v>(0));
        }
      BARRIER
    }
  }
  template <class L, class Samples, class Last, class Below, class Delta>
  INLINE void add_chunk(
      const Context &ctx, L l, Samples samples, Last last, const Below &below, const Delta &delta) {
    const auto O = OF(WIDTH, above(l));
    const auto O_pitch = OF(PITCH, above(l));
    const int weight_at = OF(WEIGHT_AT, l), bias_at = OF(BIAS_AT, l);
    entry *grad = ctx.mem.grad;
    auto load = [&](int i, int o) { return load_state(ctx, weight_at + i * O_pitch + o); };  // used only if `last`
    auto finish = [&](int i, int o, v sum, const ParamState<v> &x) {
      if (last) apply_gradient<true>(ctx, weight_at + i * O_pitch + o, sum, x);
      else write(grad, weight_at + i * O_pitch + o, sum);
    };
    const auto earlier_weights = earlier_chunks(O_pitch, grad + weight_at);
    product(OF(WIDTH, l), O, samples, below, delta, earlier_weights, for_each_sum(load, finish));
    if constexpr (!TRAIN_BIAS) return;
    entry *delta_sums = CHUNKED && BIAS_KIND == PER_LAYER ? ctx.mem.delta_sums + l * MAX_PITCH : ctx.mem.column_sums;
    const auto earlier_biases = earlier_chunks(O_pitch, BIAS_KIND == PER_NEURON ? grad + bias_at : delta_sums);
    product(SIZE(1), O, samples, Ones(), delta, earlier_biases, for_each_sum([&](int, int o, v sum) {
      if constexpr (BIAS_KIND == PER_LAYER) write(delta_sums, o, sum);
      else if (last) apply_gradient<false>(ctx, bias_at + o, sum);
      else write(grad, bias_at + o, sum);
    }));
    if (BIAS_KIND == PER_LAYER && last) apply_layer_bias(ctx, l, delta_sums);
  }
  INLINE void update_held(const Context &) {}

 private:
  template <class Pitch>  // any for biases, which are a single row
  INLINE static auto earlier_chunks(Pitch pitch, const entry *sums) {
    if constexpr (CHUNKED) return matrix(pitch, sums);
    else return Zeros();
  }
};

#else

template <int l>
struct SumsToLayer : SumsToLayer<l - 1> {  // of layers 0 to l
  ProductSums<WIDTH[l], WIDTH[l + 1], CHUNK, true, false> weight;
  ColumnSums<WIDTH[l + 1]> bias;
};
template <>
struct SumsToLayer<-1> {};

// Held: each thread keeps the sums of its tiles, of all layers, in registers through all chunks of a step. They update
// their parameters after the last one or, where LAYERWISE, at once.
struct Gradients : private SumsToLayer<LAYERS - 1> {
  static constexpr bool held = true;

  template <int l = LAYERS - 1>
  INLINE void begin(const Context &ctx) {
    of<l>().weight.set_to_zero();
    of<l>().bias.set_to_zero();
    if constexpr (l > 0) begin<l - 1>(ctx);
  }
  template <int l, int samples, class Last, class Below, class Delta>
  INLINE void add_chunk(
      const Context &ctx, constant<l>, constant<samples>, Last, const Below &below, const Delta &delta) {
    of<l>().weight.template add<samples>(below, delta);
    if constexpr (TRAIN_BIAS) of<l>().bias.template add<samples>(delta);
    BARRIER  // before backward() overwrites the outs below
    if constexpr (LAYERWISE) apply_layer<l>(ctx);
  }
  template <int l = LAYERS - 1>
  INLINE void update_held(const Context &ctx) {
    if constexpr (!LAYERWISE) {
      apply_layer<l>(ctx);
      if constexpr (l > 0) update_held<l - 1>(ctx);
    }
  }

 private:
  template <int l>
  INLINE SumsToLayer<l> &of() {
    return *this;
  }
  template <int l>
  INLINE void apply_layer(const Context &ctx) {
    auto place = [](int i, int o) {
      const int at = WEIGHT_AT[l] + i * PITCH[l + 1] + o;
      if constexpr (WIDTH[l + 1] == 1) return Single{at};
      else return at;
    };
    auto load = [&](int i, int o) { return load_state(ctx, place(i, o)); };
    of<l>().weight.finish(for_each_sum(load, [&](int i, int o, v sum, const auto &x) {
      if constexpr (WIDTH[l + 1] == 1) apply_gradient<true>(ctx, place(i, o), sum.part[0], x);
      else apply_gradient<true>(ctx, place(i, o), sum, x);
    }));
    if constexpr (TRAIN_BIAS)
      of<l>().bias.for_each([&](int o, real sum) {
        if constexpr (BIAS_KIND == PER_LAYER) ctx.mem.column_sums[o] = sum;
        else apply_gradient<false>(ctx, Single{BIAS_AT[l] + o}, sum);
      });
    BARRIER
    if constexpr (TRAIN_BIAS && BIAS_KIND == PER_LAYER) apply_layer_bias(ctx, constant<l>(), ctx.mem.column_sums);
  }
};

#endif
