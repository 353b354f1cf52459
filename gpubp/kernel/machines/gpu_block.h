// A team of THREADS threads trains one network, whose numbers are in shared memory (GPU_STREAMED: few of them); the
// threads share the items of every phase. A block is one team, or its single warp is several teams with a network each;
// or a team is a cluster of blocks, which share arrays in global memory, and have a Group each.
// product: of GPU_BLOCK in product.h; of GPU_WIDE in gpu_sums.h; of GPU_STREAMED in gpu_stream.h.
#pragma once
#include "arithmetic.h"
static_assert(TEAMS_PER_BLOCK == 1 || (TEAMS_PER_BLOCK * THREADS == 32 && !STREAMED),
              "no such layout: teams share one warp");
#if BLOCKS_PER_TEAM > 1
static_assert(STREAMED && TASK == TRAIN && !GROUP_IN_GLOBAL, "no such layout: blocks share global memory");
#endif

typedef real native, entry, per_network;
constexpr int ENTRIES_PER_V = REGISTERS_PER_V, NETWORKS = 1, DOUBLE_LANES = 1;

// RANK: a thread's number in its team or, where a team is several blocks, in its block BLOCK_OF_TEAM. The compiler must
// be told that it is below THREADS, or it does not see which loops have one iteration. The teams of a warp do not wait
// for each other, the blocks of a team do, and see what the others have written before.
#if TEAMS_PER_BLOCK == 1
FN int rank() {
  __builtin_assume(threadIdx.x < THREADS);
  return threadIdx.x;
}
#define RANK rank()
#if BLOCKS_PER_TEAM == 1
#define BARRIER __syncthreads();
#elif defined(__CUDACC__)
#define BARRIER \
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
#define BARRIER wait_for_cluster();
#endif
#else
#define RANK (threadIdx.x % THREADS)
#define BARRIER __syncwarp(((1u << THREADS) - 1) << (threadIdx.x - RANK));
#endif
#define BLOCK_OF_TEAM ((int)(blockIdx.x % BLOCKS_PER_TEAM))
#define GROUP_FOR(item, count) for (int item = RANK; item < (count); item += THREADS)
#define PARALLEL_FOR(item, count) \
  for (int item = BLOCK_OF_TEAM * THREADS + RANK; item < (count); item += BLOCKS_PER_TEAM * THREADS)

#if LANES_ARE_OUTPUTS
#include "machines/gpu_vector.h"
#else
typedef real v;
#endif

// Asynchronous copies to shared memory: to be read after wait_for_copies(), by the thread that began them, and a
// BARRIER. commit_copies() makes a group of those since its last call; wait_for_copies_but() waits for all groups but
// the last few. Where a CPU plays the GPU, they are in tests/play.h, which makes the copies as late as it may.
#ifdef __CUDACC__
template <int bytes>
FN void begin_copy(entry *to, const real *from) {
  const unsigned shared_to = (unsigned)__cvta_generic_to_shared(to);
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_to), "l"(from), "n"(bytes));
}
FN void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int groups>
FN void wait_for_copies_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}
FN void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif

#include "product.h"
#if LANES_ARE_OUTPUTS
#include "machines/gpu_sums.h"
#endif
#if STREAMED
#include "machines/gpu_stream.h"
#endif

// ---- parameters and samples: Job's arrays are packed, in Memory the rows of a matrix lie PITCH entries apart ----

// f(place in a packed row, place in Memory.params) for every parameter: neighbouring threads take neighbours.
template <int l = 0, class F>
FN void for_each_param(F f) {
  constexpr int O = WIDTH[l + 1], weights = WIDTH[l] * O;
  PARALLEL_FOR(at, weights + BIAS_COUNT[l]) {
    f(LAYER_AT[l] + at, at < weights ? WEIGHT_AT[l] + at / O * PITCH[l + 1] + at % O : BIAS_AT[l] + at - weights);
  }
  if constexpr (l + 1 < LAYERS) for_each_param<l + 1>(f);
}
template <class Networks>
FN void copy_in(entry *to, const real *rows, Networks networks) {
  const real *from = rows + networks[0] * P;
  for_each_param([&](int packed, int padded) { to[padded] = from[packed]; });
}
template <class Networks>
FN void copy_out(real *rows, const entry *from, Networks networks, const bool *keep) {
  real *to = rows + networks[0] * P;
  if (keep[0]) for_each_param([&](int packed, int padded) { to[packed] = from[padded]; });
}
template <int samples, int width, class Inputs>
FN void copy_rows(entry *x, Inputs inputs) {  // `width` numbers at once
  constexpr int per_row = WIDTH[0] / width;
#ifdef __CUDACC__
#pragma unroll 2  // by the four that the compiler prefers, 8-32-32-1 had 40 registers more, and six blocks for eight
#endif
  PARALLEL_FOR(at, samples * per_row) {
    const int i = at % per_row * width;
    begin_copy<width * sizeof(real)>(x + at / per_row * PITCH[0] + i, inputs(at / per_row, 0) + i);
  }
}
template <class Samples, class Targets, class Inputs, class Target>
FN void gather_samples(Samples samples, Targets targets, entry *x, entry *y, Inputs inputs, Target target) {
  constexpr int width = WIDTH[0] % PITCH_UNIT ? 1 : PITCH_UNIT;
  if (width > 1 && (uint64_t)inputs(0, 0) % (width * sizeof(real)) == 0) copy_rows<Samples::value, width>(x, inputs);
  else copy_rows<Samples::value, 1>(x, inputs);
  PARALLEL_FOR(at, samples * targets) { y[at] = target(at / targets, 0, at % targets); }
  wait_for_copies();
}

// ---- the launch ----

#include "machines/gpu_pieces.h"

// Calls advance(job, memory, group, n, steps) for each piece of a network n that a team has, one after the other.
// A block's shared memory has for each team its Group, then the entries of its Memory; where STREAMED, then the strips
// of matrices. Arrays in global memory are in End.far, those of all teams of the grid.
template <class Memory, class Group, class Job, class End, class Advance>
FN void launch(const Job &job, const End &end, Advance advance) {
  const int team = TEAMS_PER_BLOCK == 1 ? 0 : threadIdx.x / THREADS;
  const int64_t team_of_grid = (int64_t)(blockIdx.x / BLOCKS_PER_TEAM) * TEAMS_PER_BLOCK + team;
  Group *group = (Group *)((char *)shared + team * TEAM_PITCH);
  entry *entries = (entry *)(group + 1);
  real *far = end.far + team_of_grid * FAR_ENTRIES;
  PARALLEL_FOR(at, FAR_ENTRIES) { far[at] = 0; }
#if STREAMED
  if (GROUP_IN_GLOBAL) entries = (entry *)group, group = (Group *)far, far = (entry *)(group + 1);
#endif
  Memory mem{entries, far};
  PARALLEL_FOR(at, MEMORY_ENTRIES) { entries[at] = 0; }  // so that padding is finite
  unsigned *scratch = (unsigned *)((char *)group - team * TEAM_PITCH);  // which every network sets anew
  const int64_t steps = TASK == TRAIN ? job.steps : 1, blocks = (job.count + TEAMS_PER_BLOCK - 1) / TEAMS_PER_BLOCK;
  auto advance_block = [&](int64_t block, int64_t steps) INLINED {
    const int64_t n = block * TEAMS_PER_BLOCK + team;
    BARRIER
    if (n < job.count) advance(job, mem, group, n, steps);
  };
  if constexpr (LANES_ARE_OUTPUTS || FAR_ENTRIES > 0) for_each_piece(end, steps, blocks, scratch, advance_block);
  else one_piece(end, steps, (unsigned)blocks, scratch, advance_block);  // a loop takes a plain block's registers
}
