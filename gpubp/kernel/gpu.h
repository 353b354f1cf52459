// The GPU's entry. Which thread trains which network, and where the network's numbers are, is the machine's part:
// launch() in machines/gpu_thread.h and gpu_block.h.
//
// A launch gives every block SHARED_BYTES of shared memory. The Job is the CPU's, except that Job.taken is the kernel's
// own: it says itself which networks diverged, in End (engines/job.py).
#pragma once
#if TASK == TRAIN
#include "call.h"

constexpr int8_t DIVERGED = 4;  // of state.Status

// Up to `most` steps of network n. If a number is not finite after one of them, train() has stored nothing: then find
// that step, take the steps before it, and note that the network diverged (as diverge() in engines/cpu.py does).
FN void advance(const Memory &mem, Group *group, const Job &job, const End &end, int64_t n, int64_t most) {
  enum { ALL_STEPS, FIND_FAULT, STEPS_BEFORE };
  int64_t row[] = {n}, steps[] = {steps_of(job, n)};
  if (steps[0] > most) steps[0] = most;
  if (!steps[0]) return;
  for (int attempt = ALL_STEPS; attempt <= STEPS_BEFORE; attempt++) {
    PARALLEL_FOR(item, 1) { job.taken[n] = 0; }
    if (steps[0]) train({mem, group, &job, nullptr, nullptr, attempt == FIND_FAULT}, {row, false}, steps, nullptr);
    BARRIER
    const int64_t fault = -job.taken[n];
    if (attempt == ALL_STEPS && !fault) return;
    if (attempt == FIND_FAULT) steps[0] = fault - 1;
    BARRIER
  }
  PARALLEL_FOR(item, 1) {
    end.status[n] = DIVERGED;
    end.diverged[n] = job.step[n];
  }
}
#else
#include "show.h"

FN void advance(const Memory &mem, Group *group, const Job &job, const End &, int64_t n, int64_t) {
  const int64_t row[] = {n};
  const bool is_network[] = {true};
  show({mem, group, &job, nullptr, nullptr, false}, {row, false}, is_network);
}
#endif

#if BLOCKS_PER_TEAM > 1
#define CLUSTER __cluster_dims__(BLOCKS_PER_TEAM, 1, 1)
#else
#define CLUSTER
#endif
#if BLOCKS_AT_ONCE
#define BOUNDS THREADS *TEAMS_PER_BLOCK, BLOCKS_AT_ONCE
#elif STREAMED || TF32  // registers for 256 threads on a multiprocessor: a compiler that aims at more spills
#define BOUNDS THREADS, 256 / THREADS
#else
#define BOUNDS THREADS *TEAMS_PER_BLOCK
#endif
extern "C" __global__ void __launch_bounds__(BOUNDS) CLUSTER
    run(const __grid_constant__ Job given, const __grid_constant__ End end) {
  auto advance_network = [&](const Job &job, const Memory &mem, Group *group, int64_t n, int64_t steps) INLINED {
    advance(mem, group, job, end, n, steps);
  };
  launch<Memory, Group>(given, end, advance_network);
}
