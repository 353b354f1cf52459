// Lanes are outputs: v holds VECTOR neighbouring numbers of one network. For wide layers and large batches. In CPU_TEAM
// all threads of a call work on one network, then on the next.
#pragma once
#include "arithmetic.h"

typedef vec<real, VECTOR> native, v;
typedef real entry, per_network;
constexpr int ENTRIES_PER_V = VECTOR, NETWORKS = 1, DOUBLE_LANES = 1;
FN v broadcast(const entry *p, int j) { return splat<v>(p[j]); }
FN v read(const entry *p, int j) { return load<v>(p + j); }
FN void write(entry *p, int j, v x) { store<v>(p + j, x); }
FN v as_v(per_network x) { return splat<v>(x); }

#if TEAM
#include <sched.h>
// A barrier for the `size` threads of a team. The last to arrive releases the others, which spin, and yield after a
// while. Each field has a cache line, since all fields are read or written while other threads spin on `round`.
struct Team {
  alignas(64) int size;
  alignas(64) int waiting;
  alignas(64) int round;
};
static thread_local Team *team;
static thread_local int rank, team_size;  // of this thread in its team; Team.size
static void barrier() {
  int round = __atomic_load_n(&team->round, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&team->waiting, 1, __ATOMIC_ACQ_REL) == team_size) {
    __atomic_store_n(&team->waiting, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&team->round, round + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int spins = 0; __atomic_load_n(&team->round, __ATOMIC_ACQUIRE) == round; spins++)
    if (spins > 2000) sched_yield();
}
#define PARALLEL_FOR(item, count) for (int item = rank; item < (count); item += team_size)
#ifndef BARRIER
#define BARRIER barrier();
#endif
#else
#define PARALLEL_FOR(item, count) for (int item = 0; item < (count); ++item)
#define BARRIER
#endif

#include "product.h"

// ---- parameters: Job's rows are packed, in Memory the rows of a weight lie PITCH entries apart ----

// f(count, place in a packed row, place in Memory.params) for every row of a weight, and for the biases of a layer.
template <class F>
FN void for_each_row(F f) {
  for (int l = 0; l < LAYERS; l++) {
    const int I = WIDTH[l], O = WIDTH[l + 1], bias = BIAS_COUNT[l];
    PARALLEL_FOR(i, I + (bias > 0)) { f(i < I ? O : bias, LAYER_AT[l] + i * O, WEIGHT_AT[l] + i * PITCH[l + 1]); }
  }
}
template <class Networks>
FN void copy_in(entry *to, const real *rows, Networks networks) {
  const real *from = rows + networks[0] * P;
  for_each_row([&](int count, int packed, int padded) {
    memcpy(to + padded, from + packed, count * sizeof(real));
    memset(to + padded + count, 0, (pad(count) - count) * sizeof(real));
  });
}
template <class Networks>
FN void copy_out(real *rows, const entry *from, Networks networks, const bool *keep) {
  real *to = rows + networks[0] * P;
  if (!keep[0]) return;
  for_each_row([&](int count, int packed, int padded) { memcpy(to + packed, from + padded, count * sizeof(real)); });
}

#if GENERAL
// inputs(b, n): where the inputs of sample b of the network begin. The loss reads targets in the data (loss.h).
template <class Samples, class Targets, class Inputs, class Target>
FN void gather_samples(Samples samples, Targets, entry *x, entry *, Inputs inputs, Target) {
  for (int b = 0; b < samples; b++) memcpy(x + b * PITCH[0], inputs(b, 0), WIDTH[0] * sizeof(real));
}
#endif

// The weight (I, O) of layer l transposed to (O, I), square by square: a v of it is neighbouring inputs.
template <class L>
FN void transpose_weight(L l, entry *to, const entry *weight) {
  const int I = OF(WIDTH, l), O = OF(WIDTH, above(l)), I_pitch = OF(PITCH, l), O_pitch = OF(PITCH, above(l));
  const int down = pad(I) / ENTRIES_PER_V, across = pad(O) / ENTRIES_PER_V;
  PARALLEL_FOR(square, down * across) {
    const int i = square % down * ENTRIES_PER_V, o = square / down * ENTRIES_PER_V;
    v r[ENTRIES_PER_V];
    UNROLL for (int j = 0; j < ENTRIES_PER_V; j++)
      r[j] = i + j < I ? read(weight, (i + j) * O_pitch + o) : splat<v>(0);
    transpose(r);
    UNROLL for (int j = 0; j < ENTRIES_PER_V; j++)
      if (o + j < O) write(to, (o + j) * I_pitch + i, r[j]);
  }
  BARRIER
}
