// A thread trains one network, whose numbers are all in its registers. For networks of some 30 parameters, one sample a
// step.
#pragma once
#include "arithmetic.h"
static_assert(TEAMS_PER_BLOCK == 1, "no such layout");

typedef real native, v, entry, per_network;
constexpr int ENTRIES_PER_V = 1, NETWORKS = 1, DOUBLE_LANES = 1;

#define PARALLEL_FOR(item, count) UNROLL for (int item = 0; item < (count); ++item)
#define BARRIER

#include "product.h"
// One sum after the other: a tile saves loads, and numbers in registers need none.
template <int M, int N, int K, class A, class B, class C, class Epilogue>
FN void product(A a, B b, C c, Epilogue epilogue) {
  PARALLEL_FOR(m, M) {
    PARALLEL_FOR(n, N) {
      v sum = c.read(m, n);
      PARALLEL_FOR(k, K) { sum = fma_(a.broadcast(m, k), b.read(k, n), sum); }
      epilogue(SingleSum{m, n, sum});
    }
  }
}

// launch() has pointed `rows` to the row of this thread's network.
template <class Networks>
FN void copy_in(entry *to, const real *rows, Networks) {
  PARALLEL_FOR(at, P) { to[at] = rows[at]; }
}
template <class Networks>
FN void copy_out(real *rows, const entry *from, Networks, const bool *keep) {
  PARALLEL_FOR(at, P) {
    if (keep[0]) rows[at] = from[at];
  }
}

// ---- the launch: parameters and slots come and go through shared memory ----

#include "machines/gpu_pieces.h"

// The rows of a block's networks, which are those from `begin` on, from global to shared memory, or back: neighbouring
// threads move neighbouring numbers. In shared memory a row begins every ROW_PITCH numbers, an odd number, so that each
// thread then reads its row from a different bank.
template <bool back>
FN void move_rows(real *shared_rows, real *global_rows, int64_t begin, int64_t count) {
  const int size = (int)(count - begin < THREADS ? count - begin : THREADS) * P;
  for (int at = threadIdx.x; at < size; at += THREADS) {
    real *in_shared = shared_rows + at / P * ROW_PITCH + at % P, *in_global = global_rows + begin * P + at;
    if (back) *in_global = *in_shared;
    else *in_shared = *in_global;
  }
}

// Calls advance(job, memory, group, n, steps) for the network n of this thread, or a piece of it, with a job that
// points to its rows in shared memory.
template <class Memory, class Group, class Job, class End, class Advance>
FN void launch(const Job &given, const End &end, Advance advance) {
  const unsigned blocks = (unsigned)((given.count + THREADS - 1) / THREADS);
  one_piece(end, given.steps, blocks, (unsigned *)shared, [&](int64_t block, int64_t steps) {
    const int64_t begin = block * THREADS, n = begin + threadIdx.x;
    Job job = given;
    auto shared_rows = [&](int array) { return (real *)shared + array * THREADS * ROW_PITCH; };
    auto global_rows = [&](int array) { return array ? given.slots[array - 1] : given.params; };
    for (int array = 0; array <= SLOTS; array++) {
      move_rows<false>(shared_rows(array), global_rows(array), begin, given.count);
      (array ? job.slots[array - 1] : job.params) = shared_rows(array) + threadIdx.x * ROW_PITCH;
    }
    __syncthreads();
    if (n < given.count) {
      Group group;
      real entries[MEMORY_ENTRIES];
      advance(job, Memory{entries}, &group, n, steps);
    }
    if constexpr (TASK == TRAIN) {
      __syncthreads();
      for (int array = 0; array <= SLOTS; array++)
        move_rows<true>(shared_rows(array), global_rows(array), begin, given.count);
    }
  });
}
