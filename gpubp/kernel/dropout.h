// Dropout: which outs of a hidden layer are kept (rng.dropout_factors).
#pragma once
#include "memory.h"
#include "random.h"

// Unit o of slot b takes word b O + o of the sequence at (step, layer l, DROPOUT): kept, times 1 / (1 - p), if the word
// is p 2^32 or more. Four words come from one counter; a lane is a network, or a counter of one network.
template <int l, int rows>
FN void dropout(const Work &k, int first) {
  constexpr int O = WIDTH[l + 1], Op = PITCH[l + 1];
  s *outs = k.m.outs + OUTS_AT[l], *belows = k.m.belows + OUTS_AT[l], *masks = k.m.masks + OUTS_AT[l];
  const Group &g = *k.g;
  int begin = first * O, end = (first + rows) * O, quads = (end + 3) / 4 - begin / 4;
  EACH(item, cdiv(quads, NL)) {
    for (int part = 0; part < PARTS; part++) {
      uints index = all<uints>((uint32_t)(begin / 4 + item * NL)), id, step;
      if (NL > 1) {
        for (int j = 0; j < NL; j++) ((uint32_t *)&index)[j] += j;
        id = all<uints>(g.id[0]), step = all<uints>(g.step[0]);
      } else {
        id = load<uints>(g.id + part * VECTOR), step = load<uints>(g.step + part * VECTOR);
      }
      auto four = philox<uints>(index, step, all<uints>(l), all<uints>(DROPOUT_STREAM), all<uints>(k.job->seed), id);
      for (int j = 0; j < VECTOR; j++)
        for (int q = 0; q < 4; q++) {
          int n = NL > 1 ? 0 : part * VECTOR + j, at = 4 * (begin / 4 + (NL > 1 ? item * NL + j : item)) + q;
          if (at < begin || at >= end) continue;
          double chance = g.hyper[most(DROPOUT, 0)][n];
          double threshold = (chance * 4294967296.0 + 4503599627370496.0) - 4503599627370496.0;  // rounded
          bool kept = ((const uint32_t *)&four.word[q])[j] >= threshold;
          real factor = kept ? (real)(1 / (1 - chance)) : 0;
          int place = ((at - begin) / O * Op + at % O) * NETWORKS + n;
          ((real *)masks)[place] = factor;
          ((real *)belows)[place] = ((real *)outs)[place] * factor;
        }
    }
  }
  BARRIER
}
