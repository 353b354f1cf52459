// The GPU's launch: a thread is a network, or the threads of a block train one network after the other (TEAM), or each
// of TOGETHER parts of the block trains one.
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

constexpr int64_t size_of_memory() {
  Memory m{};
  return layout(m, Nowhere());
}

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

alignas(64) extern __shared__ double shared[];  // as a Group asks for

#if TEAM

constexpr int64_t NUMBERS = size_of_memory(), BYTES = sizeof(Group) + NUMBERS * sizeof(real);
// Parts of a block lie an odd multiple of 64 bytes apart: the numbers of half a warp begin in other banks.
constexpr int64_t APART_BY = TOGETHER == 1 ? BYTES : 64 * ((BYTES + 63) / 64 | 1);
static_assert(SHARED == TOGETHER * APART_BY, "engines/chip.py counts otherwise");
static_assert(TOGETHER == 1 || TOGETHER * THREADS == 32, "networks share a warp");

extern "C" __global__ void __launch_bounds__(THREADS * TOGETHER)
    run(const __grid_constant__ Job job, const __grid_constant__ End end) {
  const int part = TOGETHER == 1 ? 0 : threadIdx.x / THREADS;
  const int64_t first = (int64_t)blockIdx.x * TOGETHER + part;
  Memory m;
  Group *group = (Group *)((char *)shared + part * APART_BY);
  s *numbers = (s *)(group + 1);
  layout(m, numbers);
#if !NEAR
  m.slots = end.slots + first * SLOTS * P;
  EACH(at, SLOTS * P) { m.slots[at] = 0; }
#endif
  EACH(at, (int)NUMBERS) { numbers[at] = 0; }  // so that padding holds numbers
  for (int64_t n = first; n < job.count; n += (int64_t)gridDim.x * TOGETHER) {
    BARRIER
    advance(m, group, job, end, n);
  }
}

#else

constexpr int ROW = row_of(L), STEP = ROW | 1;  // rows an odd number apart: each thread reads from a bank of its own
static_assert(SHARED == (1 + SLOTS) * THREADS * STEP * sizeof(real), "engines/chip.py counts otherwise");

// The rows of a block's networks from global memory to shared memory, or back: neighbouring threads move neighbours.
template <bool back>
FN void move_rows(real *near, real *rows, int64_t first, int64_t count) {
  const int size = (int)(count - first < THREADS ? count - first : THREADS) * ROW;
  for (int at = threadIdx.x; at < size; at += THREADS) {
    real *here = near + at / ROW * STEP + at % ROW, *there = rows + first * ROW + at;
    if (back) *there = *here;
    else *here = *there;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    run(const __grid_constant__ Job given, const __grid_constant__ End end) {
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
    Memory m;
    Group group;
    real numbers[size_of_memory()];
    layout(m, numbers);
    advance(m, &group, job, end, n);
  }
#if TASK == TRAIN
  __syncthreads();
  for (int slot = 0; slot <= SLOTS; slot++) move_rows<true>(near(slot), far(slot), first, given.count);
#endif
}

#endif
