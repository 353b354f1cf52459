// Dropout: which outs of a hidden layer are kept (rng.dropout_factors).
#pragma once
#include "memory.h"
#include "random.h"

// Out o of sample b takes word b O + o of the sequence at (step, layer l, DROPOUT_STREAM): it is kept, times
// 1 / (1 - p), if the word is at least p 2^32. Philox gives four words for a counter; a lane of uints is a network, or
// a counter of one network.
template <class L, class Samples>
FN void dropout(const Context &ctx, L l, Samples samples, int start) {
  const auto O = OF(WIDTH, above(l));
  const auto O_pitch = OF(PITCH, above(l));
  const int outs_at = OF(OUTS_AT, l);
  entry *outs = ctx.mem.outs + outs_at, *dropped = ctx.mem.dropped + outs_at, *masks = ctx.mem.masks + outs_at;
  const Group &group = *ctx.group;
  int begin = start * O, end = (start + samples) * O, quads = (end + 3) / 4 - begin / 4;
  constexpr int COUNTERS = LANES_ARE_OUTPUTS ? VECTOR : 1;  // of an item
  PARALLEL_FOR(item, cdiv(quads, COUNTERS)) {
    for (int part = 0; part < (LANES_ARE_OUTPUTS ? 1 : REGISTERS_PER_V); part++) {  // the networks of a register of v
      uints index = splat<uints>((uint32_t)(begin / 4 + item * COUNTERS)), id, step;
      if (COUNTERS > 1) {
        for (int j = 0; j < COUNTERS; j++) ((uint32_t *)&index)[j] += j;
        id = splat<uints>(group.id[0]), step = splat<uints>(group.dropout_step[0]);
      } else {
        id = load<uints>(group.id + part * VECTOR), step = load<uints>(group.dropout_step + part * VECTOR);
      }
      const uints layer = splat<uints>(l), stream = splat<uints>(DROPOUT_STREAM);
      auto four = philox<uints>(index, step, layer, stream, splat<uints>(ctx.job->seed), id);
      for (int j = 0; j < VECTOR; j++)
        for (int q = 0; q < 4; q++) {
          int n = COUNTERS > 1 ? 0 : part * VECTOR + j;
          int at = 4 * (begin / 4 + (COUNTERS > 1 ? item * COUNTERS + j : item)) + q;
          if (at < begin || at >= end) continue;
          double p = group.hyper[max_of(HYPER_DROPOUT, 0)][n];
          double threshold = (p * 4294967296.0 + 4503599627370496.0) - 4503599627370496.0;  // rounded
          bool kept = ((const uint32_t *)&four.word[q])[j] >= threshold;
          real factor = kept ? (real)(1 / (1 - p)) : 0;
          int place = ((at - begin) / O * O_pitch + at % O) * NETWORKS + n;
          ((real *)masks)[place] = factor;
          ((real *)dropped)[place] = ((real *)outs)[place] * factor;
        }
    }
  }
  BARRIER
}
