// The GPU's entry; who trains which network, and where its numbers are, its machine says (machines/thread.h, block.h).
//
// Whoever launches gives every block SHARED bytes of shared memory. The Job is the CPU's; End says where it is noted
// that a network diverged, and Job.taken is the kernel's own. Unless TASK is TRAIN a network is shown samples, and
// does not learn.
#pragma once
#if TASK == TRAIN
#include "call.h"
#else
#include "show.h"
#endif

struct End {
  int8_t *status;      // (N): Job.status
  int64_t *diverged;   // (N): the step after which a number was not finite
  real *slots;         // (blocks, TOGETHER, SLOTS, P): of its networks, where they do not fit in shared memory
};
constexpr int8_t DIVERGED = 4;  // of state.Status

#if TASK != TRAIN
FN void advance(const Memory &m, Group *g, const Job &job, const End &, int64_t n) {
  const int64_t row[] = {n};
  const bool there[] = {true};
  tell({m, g, &job, nullptr, nullptr, false}, {row, false}, there);
}
#else
// The steps of network n. If a number was not finite after one of them, the network is what it was before; then look
// after which step that was, train up to the one before, and note it (what diverge() in engines/cpu.py does).
FN void advance(const Memory &m, Group *g, const Job &job, const End &end, int64_t n) {
  enum { ALL, LOOK, SOUND };
  int64_t row[] = {n}, left[] = {left_of(job, n)};
  if (!left[0]) return;
  for (int pass = ALL; pass <= SOUND; pass++) {
    EACH(item, 1) { job.taken[n] = 0; }
    if (left[0]) train({m, g, &job, nullptr, nullptr, pass == LOOK}, {row, false}, left, nullptr);
    BARRIER
    const int64_t fault = -job.taken[n];
    if (pass == ALL && !fault) return;
    if (pass == LOOK) left[0] = fault - 1;
    BARRIER
  }
  EACH(item, 1) {
    end.status[n] = DIVERGED;
    end.diverged[n] = job.step[n];
  }
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS * TOGETHER)
    run(const __grid_constant__ Job given, const __grid_constant__ End end) {
  launch<Memory, Group>(given, end.slots, [&](const Job &job, const Memory &m, Group *group, int64_t n) {
    advance(m, group, job, end, n);
  });
}
