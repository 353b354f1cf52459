// Which samples a step takes: the format of rng.samples, computed step by step, nothing stored.
#pragma once
#include "memory.h"

// ---- which samples a step takes: position p = step BATCH + b of the endless row of passes (rng.samples) ----

// Where a network stands in it; every thread of a team has its own.
struct Clock {
  uint32_t place[INDEXED], left[INDEXED], right[INDEXED];  // in the pass; digits: place = left * b + right
  uint32_t size[INDEXED], a[INDEXED], b[INDEXED], key[INDEXED];
  int64_t pass[INDEXED];
};

FN uint32_t key_of(const Work &k, const Clock &c, int n, int64_t ahead) {
  return pass_key((uint32_t)k.job->seed, SHUFFLE == 2 ? EVERYBODY : k.g->id[n], c.pass[n] + ahead);
}
FN uint32_t root_up(uint32_t size) {  // the least whole number whose square is size or more
  uint32_t root = 1;
  while ((uint64_t)root * root < size) root++;
  return root;
}
FN void set_clock(const Work &k, Clock &c, int n, int64_t size, int64_t step) {
  c.size[n] = (uint32_t)size;
  c.a[n] = root_up(c.size[n]);
  c.b[n] = (c.size[n] + c.a[n] - 1) / c.a[n];
  c.pass[n] = step * BATCH / size;
  c.place[n] = (uint32_t)(step * BATCH % size);
  c.left[n] = c.place[n] / c.b[n];
  c.right[n] = c.place[n] % c.b[n];
  c.key[n] = SHUFFLE ? key_of(k, c, n, 0) : 0;
}

FN int32_t row_at(const Work &k, int n, uint32_t at) { return (int32_t)(ROWS ? k.job->rows[k.g->rows[n] + at] : at); }

// The index of the next step, lanes being networks, each at a place of its own.
FN void draw_side_by_side(const Work &k, Clock &c) {
  constexpr int Q = least(4, BATCH);
  EACH(part, PARTS) {
    const int n = part * VECTOR;
    const uints size = load<uints>(c.size + n), a = load<uints>(c.a + n), radix = load<uints>(c.b + n);
    const uints one = all<uints>(1);
    for (int b = 0; b < BATCH; b += Q) {
      uints left[Q], right[Q], key[Q], found[Q];
      for (int q = 0; q < least(Q, BATCH - b); q++) {
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
              if (SHUFFLE) c.key[j] = key_of(k, c, j, 0);
            }
        }
      }
      for (int q = least(Q, BATCH - b); q < Q; q++) left[q] = left[0], right[q] = right[0], key[q] = key[0];
      if (SHUFFLE) permute(left, right, key, size, a, radix, found);
      for (int q = 0; q < least(Q, BATCH - b); q++) {
        int32_t *index = k.g->index[b + q] + n;
        if (ROWS) for (int j = 0; j < VECTOR; j++) index[j] = row_at(k, n + j, ((uint32_t *)&found[q])[j]);
        else store((uint32_t *)index, found[q]);
      }
    }
  }
  BARRIER
}

// The index of the next step of one network, lanes being its places.
FN void draw_alone(const Work &k, Clock &c) {
  EACH(item, cdiv(BATCH, VECTOR)) {
    uints left[1], right[1], key[1], found[1];
    for (int j = 0; j < VECTOR; j++) {
      uint32_t place = c.place[0] + least(item * VECTOR + j, BATCH - 1), ahead = place / c.size[0];
      place -= ahead * c.size[0];
      ((uint32_t *)found)[j] = place;
      ((uint32_t *)left)[j] = place / c.b[0];
      ((uint32_t *)right)[j] = place % c.b[0];
      ((uint32_t *)key)[j] = SHUFFLE && ahead ? key_of(k, c, 0, ahead) : c.key[0];
    }
    if (SHUFFLE) permute(left, right, key, all<uints>(c.size[0]), all<uints>(c.a[0]), all<uints>(c.b[0]), found);
    for (int j = 0; j < least(VECTOR, BATCH - item * VECTOR); j++)
      k.g->index[item * VECTOR + j][0] = row_at(k, 0, ((uint32_t *)found)[j]);
  }
  BARRIER
  uint32_t place = c.place[0] + BATCH, ahead = place / c.size[0];
  c.place[0] = place - ahead * c.size[0];
  if (ahead && SHUFFLE) c.key[0] = key_of(k, c, 0, ahead);
  c.pass[0] += ahead;
}

FN void draw(const Work &k, Clock &c) {
  if constexpr (APART) draw_side_by_side(k, c);
  else if constexpr (OWN) draw_alone(k, c);
}
