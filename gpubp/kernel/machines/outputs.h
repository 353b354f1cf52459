// Lanes are outputs: v holds VECTOR neighbouring numbers of one network. For wide layers and large batches. With TEAM
// all threads of a call work on one network, then on the next. What a machine defines: networks.h.
#pragma once
#include "arithmetic.h"
static_assert(WIDE && PARTS == 1 && !THREADS && TOGETHER == 1 && NEAR, "no such layout");

typedef vec<real, VECTOR> native, v;
typedef real s, one;
constexpr int NL = VECTOR, NETWORKS = 1, DOUBLES = 1;
FN v get(const s *p, int j) { return all<v>(p[j]); }
FN v read(const s *p, int j) { return load<v>(p + j); }
FN void write(s *p, int j, v x) { store<v>(p + j, x); }
FN v as_v(one x) { return all<v>(x); }
FN one own(const real (&x)[NETWORKS]) { return x[0]; }

#if TEAM
#include <sched.h>
// A barrier of `size` threads: the last to come opens it. All spin; a thread that waits long lets others run. What is
// written while others spin, or read at every phase, has cache lines of its own.
struct Team {
  alignas(64) int size;
  alignas(64) int waiting;
  alignas(64) int round;
};
static thread_local Team *team;
static thread_local int member, members;
static void barrier() {
  int round = __atomic_load_n(&team->round, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&team->waiting, 1, __ATOMIC_ACQ_REL) == members) {
    __atomic_store_n(&team->waiting, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&team->round, round + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int spins = 0; __atomic_load_n(&team->round, __ATOMIC_ACQUIRE) == round; spins++)
    if (spins > 2000) sched_yield();
}
#define EACH(t, n) for (int t = member; t < (n); t += members)
#ifndef BARRIER
#define BARRIER barrier();
#endif
#else
#define EACH(t, n) for (int t = 0; t < (n); ++t)
#define BARRIER
#endif
FN void count_one(int64_t *count) { __atomic_add_fetch(count, 1, __ATOMIC_RELAXED); }

#include "product.h"
template <int M, int N, int K, class A, class B, class C, class Epilogue>
FN void product(const A &a, const B &b, const C &c, const Epilogue &epilogue) {
  plain_product<Neighbours, M, N, K>(a, b, c, epilogue);
}

// f(numbers, where they begin in a row, where here) for every row of a weight, and for every bias.
template <class F>
FN void lines(F f) {
  for (int l = 0; l < LAYERS; l++) {
    const int I = WIDTH[l], O = WIDTH[l + 1], bias = BIASES[l];
    EACH(i, I + (bias > 0)) { f(i < I ? O : bias, ROW_AT[l] + i * O, WEIGHT_AT[l] + i * PITCH[l + 1]); }
  }
}
template <class Who>
FN void copy_in(s *to, const real *rows, Who who) {
  const real *from = rows + who[0] * ROW;
  lines([&](int count, int in_row, int here) {
    memcpy(to + here, from + in_row, count * sizeof(real));
    memset(to + here + count, 0, (pad(count) - count) * sizeof(real));
  });
}
template <class Who>
FN void copy_out(real *rows, const s *from, Who who, const bool *keep) {
  real *to = rows + who[0] * ROW;
  if (keep[0]) lines([&](int count, int in_row, int here) { memcpy(to + in_row, from + here, count * sizeof(real)); });
}

// A weight (I, O) of layer l turned into (O, I), square by square: its lanes are then along its inputs.
template <int l>
FN void turn(s *turned, const s *weight) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], down = pad(I) / NL, across = pad(O) / NL;
  EACH(square, down * across) {
    const int i = square % down * NL, o = square / down * NL;
    v r[NL];
    UNROLL for (int j = 0; j < NL; j++) r[j] = i + j < I ? read(weight, (i + j) * PITCH[l + 1] + o) : all<v>(0);
    transpose(r);
    UNROLL for (int j = 0; j < NL; j++)
      if (o + j < O) write(turned, (o + j) * PITCH[l] + i, r[j]);
  }
  BARRIER
}
