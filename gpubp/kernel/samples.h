// Which samples a step takes. A network passes through its samples again and again, each time in a new order; sample b
// of a step is the one at step BATCH + b of this endless sequence (rng.samples). Orders are computed, never stored.
#pragma once
#include "memory.h"

// Where an order stands in its sequence; every thread of a team has its own copy.
struct Cursor {
  uint32_t place[ORDERS], left[ORDERS], right[ORDERS];  // in the pass; its digits: left * radix_b + right
  uint32_t size[ORDERS], radix_a[ORDERS], radix_b[ORDERS];  // of a pass; of permute() (random.h)
  uint32_t inverse_b[ORDERS];                               // by which divided() divides by radix_b
  uint32_t key[ORDERS];                                     // of the pass's permutation
  int64_t pass[ORDERS];
};

FN uint32_t key_of(const Context &ctx, const Cursor &c, int n, int64_t ahead) {
  return pass_key((uint32_t)ctx.job->seed, SHUFFLE == 2 ? ALL_NETWORKS : ctx.group->id[n], c.pass[n] + ahead);
}
FN uint32_t root_up(uint32_t size) {  // the smallest whole number whose square is at least size
  uint32_t root = 1;
  while ((uint64_t)root * root < size) root++;
  return root;
}
// x / by, where inverse is 0xFFFFFFFF / by: the upper half of their product is that, or 1 less.
FN uint32_t divided(uint32_t x, uint32_t by, uint32_t inverse) {
  const uint32_t least = high_product(x, inverse);
  return least + (x - least * by >= by);
}
// How many passes ahead of c's a place is, which becomes one of that pass: mostly none, then without a division.
FN uint32_t passes_ahead(const Cursor &c, uint32_t &place) {
  if (place < c.size[0]) return 0;
  const uint32_t ahead = place / c.size[0];
  place -= ahead * c.size[0];
  return ahead;
}
FN void set_cursor(const Context &ctx, Cursor &c, int n, int64_t size, int64_t step) {
  c.size[n] = (uint32_t)size;
  c.radix_a[n] = root_up(c.size[n]);
  c.radix_b[n] = (c.size[n] + c.radix_a[n] - 1) / c.radix_a[n];
  c.inverse_b[n] = 0xFFFFFFFFu / c.radix_b[n];
  c.pass[n] = step * BATCH / size;
  c.place[n] = (uint32_t)(step * BATCH % size);
  c.left[n] = c.place[n] / c.radix_b[n];
  c.right[n] = c.place[n] % c.radix_b[n];
  c.key[n] = SHUFFLE ? key_of(ctx, c, n, 0) : 0;
}

FN int32_t sample_of(const Context &ctx, int n, uint32_t at) {
  return (int32_t)(SUBSETS ? ctx.job->subset[ctx.group->subset_at[n] + at] : at);
}

// The samples of the next step, where lanes are networks, each at a place of its own.
FN void draw_for_lanes(const Context &ctx, Cursor &c) {
  constexpr int Q = GENERAL ? 4 : min_of(4, BATCH);
  PARALLEL_FOR(part, REGISTERS_PER_V) {
    const int n = part * VECTOR;
    const uints size = load<uints>(c.size + n), a = load<uints>(c.radix_a + n), radix = load<uints>(c.radix_b + n);
    const uints one = splat<uints>(1);
    for (int b = 0; b < BATCH; b += Q) {
      uints left[Q], right[Q], key[Q], found[Q];
      for (int q = 0; q < min_of(Q, BATCH - b); q++) {
        left[q] = load<uints>(c.left + n), right[q] = load<uints>(c.right + n), key[q] = load<uints>(c.key + n);
        const uints next = load<uints>(c.place + n) + one, done = next >= size ? one : uints{};
        const uints full = right[q] + one >= radix ? one : uints{};
        found[q] = next - one;
        store(c.left + n, done != 0 ? uints{} : left[q] + full);
        store(c.right + n, (done | full) != 0 ? uints{} : right[q] + one);
        store(c.place + n, done != 0 ? uints{} : next);
        if (any(done)) {
          for (int j = n; j < n + VECTOR; j++)
            if (c.place[j] == 0) {
              c.pass[j]++;
              if (SHUFFLE) c.key[j] = key_of(ctx, c, j, 0);
            }
        }
      }
      for (int q = min_of(Q, BATCH - b); q < Q; q++) left[q] = left[0], right[q] = right[0], key[q] = key[0];
      if (SHUFFLE) permute(left, right, key, size, a, radix, found);
      for (int q = 0; q < min_of(Q, BATCH - b); q++) {
        int32_t *index = ctx.group->index[b + q] + n;
        if (SUBSETS) for (int j = 0; j < VECTOR; j++) index[j] = sample_of(ctx, n + j, ((uint32_t *)&found[q])[j]);
        else store((uint32_t *)index, found[q]);
      }
    }
  }
  BARRIER
}

// The samples of the next step of one network, where lanes are its places.
FN void draw_for_one(const Context &ctx, Cursor &c) {
  GROUP_FOR(item, cdiv(BATCH, VECTOR)) {
    uints left[1], right[1], key[1], found[1];
    for (int j = 0; j < VECTOR; j++) {
      uint32_t place = c.place[0] + min_of(item * VECTOR + j, BATCH - 1);
      const uint32_t ahead = passes_ahead(c, place), digit = divided(place, c.radix_b[0], c.inverse_b[0]);
      ((uint32_t *)found)[j] = place;
      ((uint32_t *)left)[j] = digit;
      ((uint32_t *)right)[j] = place - digit * c.radix_b[0];
      ((uint32_t *)key)[j] = SHUFFLE && ahead ? key_of(ctx, c, 0, ahead) : c.key[0];
    }
    const uints size = splat<uints>(c.size[0]), a = splat<uints>(c.radix_a[0]), b = splat<uints>(c.radix_b[0]);
    if (SHUFFLE) permute(left, right, key, size, a, b, found);
    for (int j = 0; j < min_of(VECTOR, BATCH - item * VECTOR); j++)
      ctx.group->index[item * VECTOR + j][0] = sample_of(ctx, 0, ((uint32_t *)found)[j]);
  }
  BARRIER
  uint32_t place = c.place[0] + BATCH;
  const uint32_t ahead = passes_ahead(c, place);
  c.place[0] = place;
  if (ahead && SHUFFLE) c.key[0] = key_of(ctx, c, 0, ahead);
  c.pass[0] += ahead;
}

FN void draw(const Context &ctx, Cursor &c) {
  if constexpr (SEPARATE_ORDERS) draw_for_lanes(ctx, c);
  else if constexpr (OWN_SAMPLES) draw_for_one(ctx, c);
}
