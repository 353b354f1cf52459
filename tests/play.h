// CUDA's names for a C++ compiler: a kernel of kernel/gpu.h, its blocks one after the other, the threads of a block as
// coroutines that switch at barriers, in one order and then in the reverse; with RACES as threads, for a sanitizer. The
// `team` neighbouring threads that train one network wait for each other: all of a block, or some of its one warp.
//
// play() returns what is wrong: a barrier that not all threads of a team reached, or a write beyond the shared memory
// that was asked for. Shared memory begins as NaN, because a GPU promises nothing about its content.
#pragma once
#include <pthread.h>
#include <ucontext.h>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

struct Place {
  int x;
};
static Place blockIdx, gridDim;
constexpr int64_t ROOM = 256 << 10;
extern "C" {
alignas(64) double shared[ROOM / sizeof(double)];
}

#define __global__ __attribute__((visibility("default")))
#define __shared__
#define __grid_constant__
#define __builtin_assume(fact) ((fact) ? (void)0 : __builtin_trap())
#define __launch_bounds__(threads)

enum Wrong { NOTHING, BARRIER_MISSED, BEYOND_SHARED };
enum { ENDED = -1, IN_WARP = -2, STACK = 256 << 10 };
static void (*kernel)();

// Copies to shared memory that a thread began: made as late as its waits allow.
struct Copy {
  void *to;
  const void *from;
  int bytes, group;
};
struct Copies {
  std::vector<Copy> begun;
  int group = 0;
};

constexpr int LANES = 32;  // of a warp
static void meet_in_warp();

#ifdef RACES
struct Thread {
  pthread_t handle;
  int number;
  Copies copies;
  int products;
};
static Thread *crowd;
static thread_local Place threadIdx;
static pthread_barrier_t *meetings;
static int members;
#define __syncthreads() (void)pthread_barrier_wait(&meetings[threadIdx.x / members])
#define __syncwarp(mask) ((void)(mask), __syncthreads())

static pthread_barrier_t *warps;
static void meet_in_warp() { pthread_barrier_wait(&warps[threadIdx.x / LANES]); }
static void *whole(void *thread) {
  threadIdx.x = ((Thread *)thread)->number;
  kernel();
  return nullptr;
}
static Wrong play_block(int threads, int team, char *) {
  members = team;
  meetings = (pthread_barrier_t *)calloc(threads / team, sizeof(pthread_barrier_t));
  for (int i = 0; i < threads / team; i++) pthread_barrier_init(&meetings[i], nullptr, team);
  warps = (pthread_barrier_t *)calloc(threads / LANES + 1, sizeof(pthread_barrier_t));
  for (int i = 0; i < threads / LANES; i++) pthread_barrier_init(&warps[i], nullptr, LANES);
  for (int t = 0; t < threads; t++) {
    crowd[t].number = t;
    pthread_create(&crowd[t].handle, nullptr, whole, &crowd[t]);
  }
  for (int t = 0; t < threads; t++) pthread_join(crowd[t].handle, nullptr);
  for (int i = 0; i < threads / team; i++) pthread_barrier_destroy(&meetings[i]);
  for (int i = 0; i < threads / LANES; i++) pthread_barrier_destroy(&warps[i]);
  free(meetings), free(warps);
  return NOTHING;
}
#else
struct Thread {
  ucontext_t context;
  Copies copies;
  int products;
  int at;         // the line of its barrier
  unsigned mask;  // of whom it waits for there, in a warp
};
static Thread *crowd;
static Place threadIdx;
static ucontext_t scheduler;
#define __syncthreads() come_to(__LINE__, ~0u)
#define __syncwarp(mask) come_to(__LINE__, mask)

static void come_to(int line, unsigned mask) {
  crowd[threadIdx.x].at = line;
  crowd[threadIdx.x].mask = mask;
  swapcontext(&crowd[threadIdx.x].context, &scheduler);
}
static void meet_in_warp() { come_to(IN_WARP, ~0u); }
static void whole() {
  kernel();
  crowd[threadIdx.x].at = ENDED;
}

// Whether a thread came to the barrier of its team, and waits there for this team alone, or for the whole block.
static bool met(int thread, int threads, int team) {
  const Thread &own = crowd[thread], &first = crowd[thread / team * team];
  const unsigned whom = team == threads ? ~0u : ((1u << team) - 1) << (thread / team * team % 32);
  return own.at == first.at && (own.at == ENDED || own.mask == whom);
}
static Wrong play_block(int threads, int team, char *stacks) {
  for (int t = 0; t < threads; t++) {
    getcontext(&crowd[t].context);
    crowd[t].context.uc_stack.ss_sp = stacks + (int64_t)t * STACK;
    crowd[t].context.uc_stack.ss_size = STACK;
    crowd[t].context.uc_link = &scheduler;
    makecontext(&crowd[t].context, whole, 0);
    crowd[t].at = 0;
  }
  for (bool backwards = false;; backwards = !backwards) {
    bool in_warps = false, still = false;  // then only these go on, and the others wait at their barrier
    for (int t = 0; t < threads; t++) in_warps |= crowd[t].at == IN_WARP;
    for (int i = 0; i < threads; i++) {
      threadIdx.x = backwards ? threads - 1 - i : i;
      const int at = crowd[threadIdx.x].at;
      if (at != ENDED && in_warps == (at == IN_WARP)) swapcontext(&scheduler, &crowd[threadIdx.x].context);
    }
    for (int t = 0; t < threads; t++) {
      still |= crowd[t].at == IN_WARP;
      if ((crowd[t].at == IN_WARP) != (crowd[t / LANES * LANES].at == IN_WARP)) return BARRIER_MISSED;
    }
    if (still) continue;
    bool all_ended = true;
    for (int t = 0; t < threads; t++) {
      if (!met(t, threads, team)) return BARRIER_MISSED;
      all_ended &= crowd[t].at == ENDED;
    }
    if (all_ended) return NOTHING;
  }
}
#endif

// mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32, whose lanes have of A, B and C what NVIDIA's PTX ISA says. Of
// operands the digits that tf32 has not are dropped. Products are exact, sums in the order of k: a GPU's may be in
// another, and rounded otherwise.
struct Operands {
  uint32_t a[4], b[2];
};
static Operands operands[2][1024];  // of two products in turn, so that all have read one before it is written again
static void play_mma(float *above, float *below, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const int own = threadIdx.x, lane = own % LANES, first = own - lane;
  Operands *brought = operands[crowd[own].products++ % 2];
  memcpy(brought[own].a, a, sizeof a), memcpy(brought[own].b, b, sizeof b);
  meet_in_warp();
  auto number = [](uint32_t bits) {
    float x;
    bits &= 0xffffe000;
    memcpy(&x, &bits, sizeof x);
    return x;
  };
  for (int half = 0; half < 2; half++)
    for (int j = 0; j < 2; j++)
      for (int k = 0; k < 8; k++) {
        const float left = number(brought[first + lane / 4 * 4 + k % 4].a[half + k / 4 * 2]);
        const float right = number(brought[first + (lane % 4 * 2 + j) * 4 + k % 4].b[k / 4]);
        float *sum = (half ? below : above) + j;  // of the row lane / 4, and the one 8 rows below
        *sum = __builtin_fmaf(left, right, *sum);
      }
}

static void copy_later(void *to, const void *from, int bytes) {
  Copies &copies = crowd[threadIdx.x].copies;
  copies.begun.push_back({to, from, bytes, copies.group});
}
static void group_copies() { crowd[threadIdx.x].copies.group++; }
static void copy_all_but(int groups) {  // the last groups; 0: all copies
  Copies &copies = crowd[threadIdx.x].copies;
  size_t kept = 0;
  for (const Copy &each : copies.begun)
    if (groups && each.group >= copies.group - groups) copies.begun[kept++] = each;
    else memcpy(each.to, each.from, each.bytes);
  copies.begun.resize(kept);
}

static Wrong play_grid(int64_t blocks, int threads, int team, int64_t bytes, void (*function)()) {
  Wrong wrong = NOTHING;
  kernel = function;
  crowd = new Thread[threads]();
  char *stacks = (char *)malloc((int64_t)threads * STACK);
  gridDim.x = (int)blocks;
  for (blockIdx.x = 0; blockIdx.x < blocks && !wrong; blockIdx.x++) {
    memset(shared, 0xFF, sizeof shared);
    wrong = play_block(threads, team, stacks);
    for (int64_t at = bytes; at < ROOM && !wrong; at++)
      if (((unsigned char *)shared)[at] != 0xFF) wrong = BEYOND_SHARED;
  }
  free(stacks);
  delete[] crowd;
  return wrong;
}

// What kernels are given; who of a block waits for each other; and the entry, for behind a kernel's text.
static const struct Job *kernel_job;
static const struct End *kernel_end;
#define TEAM_OF(threads) (TEAMS_PER_BLOCK > 1 ? THREADS : (int)(threads))
#define PLAY                                                                                                       \
  extern "C" __global__ int play(const Job *job, const End *end, int64_t blocks, int64_t threads, int64_t bytes) { \
    kernel_job = job, kernel_end = end;                                                                            \
    return play_grid(blocks, (int)threads, TEAM_OF(threads), bytes, [] { run(*kernel_job, *kernel_end); });        \
  }
