// A GPU's block trains one network; or its single warp is split into TOGETHER parts, with one network each. v is one
// number, a network's numbers are in shared memory, and its THREADS threads share the items of every phase. What a
// machine defines: networks.h.
#pragma once
#include "arithmetic.h"
static_assert(VECTOR == 1 && PARTS == 1 && !WIDE && TEAM, "no such layout");
static_assert(TOGETHER == 1 || TOGETHER * THREADS == 32, "no such layout: networks share one warp");

typedef real native, v, s, one;
constexpr int NL = 1, NETWORKS = 1, DOUBLES = 1;
FN v get(const s *p, int j) { return p[j]; }
FN v read(const s *p, int j) { return p[j]; }
FN void write(s *p, int j, v x) { p[j] = x; }
FN v as_v(one x) { return x; }
FN one own(const real (&x)[NETWORKS]) { return x[0]; }

// Parts of a warp do not wait for each other. The compiler must be told that a thread's number is below THREADS: it
// then sees which loops end after one round.
#if TOGETHER == 1
FN int member() {
  __builtin_assume(threadIdx.x < THREADS);
  return threadIdx.x;
}
#define MEMBER member()
#define BARRIER __syncthreads();
#else
#define MEMBER (threadIdx.x % THREADS)
#define BARRIER __syncwarp(((1u << THREADS) - 1) << (threadIdx.x - MEMBER));
#endif
#define EACH(t, n) for (int t = MEMBER; t < (n); t += THREADS)
FN void count_one(int64_t *) {}  // who has diverged is noted by the network itself

#include "product.h"
template <int M, int N, int K, class A, class B, class C, class Epilogue>
FN void product(const A &a, const B &b, const C &c, const Epilogue &epilogue) {
  plain_product<Strided, M, N, K>(a, b, c, epilogue);
}

// f(place in a row, place here) for every number of a row: neighbouring threads take neighbours.
template <int l = 0, class F>
FN void each_number(F f) {
  constexpr int O = WIDTH[l + 1], weights = WIDTH[l] * O;
  EACH(at, weights + BIASES[l]) {
    f(ROW_AT[l] + at, at < weights ? WEIGHT_AT[l] + at / O * PITCH[l + 1] + at % O : BIAS_AT[l] + at - weights);
  }
  if constexpr (l + 1 < LAYERS) each_number<l + 1>(f);
}
template <class Who>
FN void copy_in(s *to, const real *rows, Who who) {
  const real *from = rows + who[0] * ROW;
  each_number([&](int in_row, int here) { to[here] = from[in_row]; });
}
template <class Who>
FN void copy_out(real *rows, const s *from, Who who, const bool *keep) {
  real *to = rows + who[0] * ROW;
  if (keep[0]) each_number([&](int in_row, int here) { to[in_row] = from[here]; });
}
template <int rows, int targets, class Inputs, class Target>
FN void side_by_side(s *x, s *y, Inputs inputs, Target target) {
  constexpr int I = WIDTH[0];
  EACH(at, rows * I) { x[at / I * PITCH[0] + at % I] = inputs(at / I, 0)[at % I]; }
  EACH(at, rows * targets) { y[at] = target(at / targets, 0, at % targets); }
}

// ---- the launch ----

alignas(64) extern __shared__ double shared[];  // aligned as Group is

// train(job, memory, group, n) for the networks n of this block, or of a part of it, one after the other. far: where
// the slots of all that are trained at once are, unless they are NEAR.
template <class Memory, class Group, class Job, class Train>
FN void launch(const Job &job, real *far, Train train) {
  const int part = TOGETHER == 1 ? 0 : threadIdx.x / THREADS;
  const int64_t first = (int64_t)blockIdx.x * TOGETHER + part;
  Group *group = (Group *)((char *)shared + part * APART_BY);
  s *numbers = (s *)(group + 1);
  Memory m{numbers};
  if constexpr (!NEAR) {
    m.slots = far + first * SLOTS * P;
    EACH(at, SLOTS * P) { m.slots[at] = 0; }
  }
  EACH(at, NUMBERS) { numbers[at] = 0; }  // so that padding is finite
  for (int64_t n = first; n < job.count; n += (int64_t)gridDim.x * TOGETHER) {
    BARRIER
    train(job, m, group, n);
  }
}
