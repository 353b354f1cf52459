// A GPU's thread is a network: v is one number, and all of a network's numbers are registers. For networks of some 30
// parameters, one sample a step. What a machine defines: networks.h.
#pragma once
#include "arithmetic.h"
static_assert(VECTOR == 1 && PARTS == 1 && !WIDE && !TEAM && TOGETHER == 1 && NEAR, "no such layout");

typedef real native, v, s, one;
constexpr int NL = 1, NETWORKS = 1, DOUBLES = 1;
FN v get(const s *p, int j) { return p[j]; }
FN v read(const s *p, int j) { return p[j]; }
FN void write(s *p, int j, v x) { p[j] = x; }
FN v as_v(one x) { return x; }
FN one own(const real (&x)[NETWORKS]) { return x[0]; }

#define EACH(t, n) UNROLL for (int t = 0; t < (n); ++t)
#define BARRIER
FN void count_one(int64_t *) {}  // who has diverged is noted by the network itself

#include "product.h"
struct Number {  // a fragment of one sum
  int row, column;
  v sum;
  template <class F>
  INLINE void each(const F &f) const {
    f(row, column, sum);
  }
};
// All is in registers, so a tile would save nothing: one sum after the other.
template <int M, int N, int K, class A, class B, class C, class Epilogue>
FN void product(A a, B b, C c, Epilogue epilogue) {
  EACH(m, M) {
    EACH(n, N) {
      v sum = c.lanes(m, n);
      EACH(k, K) { sum = fma_(a.element(m, k), b.lanes(k, n), sum); }
      epilogue(Number{m, n, sum});
    }
  }
}

// A thread is shown its own row alone.
template <class Who>
FN void copy_in(s *to, const real *rows, Who) {
  EACH(at, ROW) { to[at] = rows[at]; }
}
template <class Who>
FN void copy_out(real *rows, const s *from, Who, const bool *keep) {
  EACH(at, ROW) {
    if (keep[0]) rows[at] = from[at];
  }
}

// ---- the launch: rows come and go through shared memory ----

alignas(64) extern __shared__ double shared[];

// The rows of a block's networks from global memory to shared memory, or back: neighbouring threads move neighbours. In
// shared memory they lie an odd number apart (STEP), so that each thread reads its own from a bank of its own.
template <bool back>
FN void move_rows(real *near, real *rows, int64_t first, int64_t count) {
  const int size = (int)(count - first < THREADS ? count - first : THREADS) * ROW;
  for (int at = threadIdx.x; at < size; at += THREADS) {
    real *here = near + at / ROW * STEP + at % ROW, *there = rows + first * ROW + at;
    if (back) *there = *here;
    else *here = *there;
  }
}

// train(job, memory, group, n) for the network n that this thread is, whose rows are those of `job`.
template <class Memory, class Group, class Job, class Train>
FN void launch(const Job &given, real *, Train train) {
  const int64_t first = (int64_t)blockIdx.x * THREADS, n = first + threadIdx.x;
  Job job = given;
  auto near = [&](int slot) { return (real *)shared + slot * THREADS * STEP; };
  auto far = [&](int slot) { return slot ? given.slots[slot - 1] : given.params; };
  for (int slot = 0; slot <= SLOTS; slot++) {
    move_rows<false>(near(slot), far(slot), first, given.count);
    (slot ? job.slots[slot - 1] : job.params) = near(slot) + threadIdx.x * STEP;
  }
  __syncthreads();
  if (n < given.count) {
    Group group;
    real numbers[NUMBERS];
    train(job, Memory{numbers}, &group, n);
  }
  if constexpr (TASK == TRAIN) {
    __syncthreads();
    for (int slot = 0; slot <= SLOTS; slot++) move_rows<true>(near(slot), far(slot), first, given.count);
  }
}
