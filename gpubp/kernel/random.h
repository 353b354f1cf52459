// Philox4x32-10 and the permutation on the fly: the format of rng.py, word for word. W is uint32_t or a vector of it.
// Philox: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11.
#pragma once
#include "simd.h"

typedef vec<uint32_t, VECTOR> uints;

// The upper half of a * m. Vectors by 16-bit halves, for few processors multiply to 64 bits in every lane.
template <class W>
FN W high_product(W a, uint32_t m) {
  if constexpr (lanes<W>::count == 1) {
    return (W)((uint64_t)a * m >> 32);
  } else {
    W low = a & 0xFFFFu, high = a >> 16, cross = low * (m & 0xFFFFu) >> 16;
    W first = high * (m & 0xFFFFu) + cross, second = low * (m >> 16) + (first & 0xFFFFu);
    return high * (m >> 16) + (first >> 16) + (second >> 16);
  }
}

template <class W>
struct Four {
  W word[4];
};

// Four uints for the counter (index, step, layer, stream) under the key (seed, id).
template <class W>
FN Four<W> philox(W index, W step, W layer, W stream, W seed, W id) {
  for (int round = 0; round < 10; round++) {
    W even = high_product(index, 0xD2511F53u), odd = high_product(layer, 0xCD9E8D57u);
    W even_low = index * 0xD2511F53u, odd_low = layer * 0xCD9E8D57u;
    index = odd ^ step ^ seed;
    step = odd_low;
    layer = even ^ stream ^ id;
    stream = even_low;
    seed = seed + 0x9E3779B9u;
    id = id + 0xBB67AE85u;
  }
  return {{index, step, layer, stream}};
}

constexpr uint32_t ORDER_STREAM = 1, DROPOUT_STREAM = 2, ALL_NETWORKS = 0xFFFFFFFFu;

// The key of a pass through a network's samples.
FN uint32_t pass_key(uint32_t seed, uint32_t id, int64_t pass) {
  return philox<uint32_t>((uint32_t)pass, (uint32_t)(pass >> 32), 0u, ORDER_STREAM, seed, id).word[0];
}

// found: which number of range(size) the permutation drawn by `key` has at the place left * b + right, for radices
// a = ceil(sqrt(size)) and b = ceil(size / a) (a Feistel network). A number outside the range is permuted again (cycle
// walking). Q places at once, because each round depends on the one before: those of other places fill its latency.
template <int Q, class W>
FN void permute(W (&left)[Q], W (&right)[Q], const W (&key)[Q], W size, W a, W b, W (&found)[Q]) {
  constexpr uint32_t ROUNDS[12] = {0x3C6EF372u, 0xDAA66D55u, 0x1B873593u, 0xAD2318D7u, 0x27D4EB2Fu, 0x85EBCA77u,
                                   0x165667B1u, 0xC2B2AE35u, 0x5BD1E995u, 0x2545F491u, 0x01234567u, 0x7FEB352Du};
  typedef vec<int32_t, lanes<W>::count> S;
  bool first = Q == 1;  // NVRTC then has a copy of the rounds for it, and needs fewer registers
  W missing;
  UNROLL for (int q = 0; q < Q; q++) found[q] = size;
  do {
    for (int round = 0; round < 12; round++) {
      const W radix = round % 2 ? b : a, constant = splat<W>(ROUNDS[round]);
      UNROLL for (int q = 0; q < Q; q++) {
        W hash = ((key[q] ^ constant) + right[q]) * 0x9E3779B1u;
        hash = (hash ^ (W)((S)hash >> 15)) * 739982445u >> 16;
        W moved = left[q] + (hash * radix >> 16), wrapped = moved - radix;
        left[q] = right[q];
        right[q] = moved < wrapped ? moved : wrapped;  // modulo the radix: below 0 wraps to a large number
      }
    }
    missing = W{};
    UNROLL for (int q = 0; q < Q; q++) {
      W value = left[q] * b + right[q];
      found[q] = first ? value : found[q] >= size ? value : found[q];
      missing = missing | (found[q] >= size ? splat<W>(1) : splat<W>(0));
    }
    first = false;
  } while (any(missing));
}
