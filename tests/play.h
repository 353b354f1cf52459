// CUDA's words for a C++ compiler: a kernel of kernel/gpu.h, its blocks one after the other, the threads of a block as
// coroutines that change at __syncthreads(), in one order and then in the other; with RACES as threads, for a sanitizer.
//
// play() says what is wrong: a barrier that not all threads came to, a write beyond the shared memory that was asked
// for. Shared memory begins as NaN, as nobody promises what is in it.
#pragma once
#include <pthread.h>
#include <ucontext.h>
#include <cstdint>
#include <cstdlib>
#include <cstring>

struct Place {
  int x;
};
static Place blockIdx, gridDim;
constexpr int64_t ROOM = 256 << 10;
extern "C" {
alignas(1024) double shared[ROOM / sizeof(double)];
}

#define __global__ __attribute__((visibility("default")))
#define __shared__
#define __grid_constant__
#define __launch_bounds__(threads)

enum Wrong { NOTHING, BARRIER_MISSED, BEYOND_SHARED };
enum { ENDED = -1, STACK = 256 << 10 };
static void (*kernel)();

#ifdef RACES
struct Thread {
  pthread_t handle;
  int number;
};
static Thread *crowd;
static thread_local Place threadIdx;
static pthread_barrier_t meeting;
#define __syncthreads() (void)pthread_barrier_wait(&meeting)

static void *whole(void *thread) {
  threadIdx.x = ((Thread *)thread)->number;
  kernel();
  return nullptr;
}
static Wrong play_block(int threads, char *) {
  pthread_barrier_init(&meeting, nullptr, threads);
  for (int t = 0; t < threads; t++) {
    crowd[t].number = t;
    pthread_create(&crowd[t].handle, nullptr, whole, &crowd[t]);
  }
  for (int t = 0; t < threads; t++) pthread_join(crowd[t].handle, nullptr);
  pthread_barrier_destroy(&meeting);
  return NOTHING;
}
#else
struct Thread {
  ucontext_t context;
  int at;  // the line of its barrier
};
static Thread *crowd;
static Place threadIdx;
static ucontext_t scheduler;
#define __syncthreads() come_to(__LINE__)

static void come_to(int line) {
  crowd[threadIdx.x].at = line;
  swapcontext(&crowd[threadIdx.x].context, &scheduler);
}
static void whole() {
  kernel();
  crowd[threadIdx.x].at = ENDED;
}

static Wrong play_block(int threads, char *stacks) {
  for (int t = 0; t < threads; t++) {
    getcontext(&crowd[t].context);
    crowd[t].context.uc_stack.ss_sp = stacks + (int64_t)t * STACK;
    crowd[t].context.uc_stack.ss_size = STACK;
    crowd[t].context.uc_link = &scheduler;
    makecontext(&crowd[t].context, whole, 0);
    crowd[t].at = 0;
  }
  for (bool backwards = false;; backwards = !backwards) {
    for (int i = 0; i < threads; i++) {
      threadIdx.x = backwards ? threads - 1 - i : i;
      swapcontext(&scheduler, &crowd[threadIdx.x].context);
    }
    for (int t = 1; t < threads; t++)
      if (crowd[t].at != crowd[0].at) return BARRIER_MISSED;
    if (crowd[0].at == ENDED) return NOTHING;
  }
}
#endif

static Wrong play_grid(int64_t blocks, int threads, int64_t bytes, void (*function)()) {
  Wrong wrong = NOTHING;
  kernel = function;
  crowd = (Thread *)calloc(threads, sizeof(Thread));
  char *stacks = (char *)malloc((int64_t)threads * STACK);
  gridDim.x = (int)blocks;
  for (blockIdx.x = 0; blockIdx.x < blocks && !wrong; blockIdx.x++) {
    memset(shared, 0xFF, sizeof shared);
    wrong = play_block(threads, stacks);
    for (int64_t at = bytes; at < ROOM && !wrong; at++)
      if (((unsigned char *)shared)[at] != 0xFF) wrong = BEYOND_SHARED;
  }
  free(stacks);
  free(crowd);
  return wrong;
}

// What kernels are given; and the entry, for behind a kernel's text.
static const struct Job *kernel_job;
static const struct End *kernel_end;
#define PLAY                                                                                                       \
  extern "C" __global__ int play(const Job *job, const End *end, int64_t blocks, int64_t threads, int64_t bytes) { \
    kernel_job = job, kernel_end = end;                                                                            \
    return play_grid(blocks, (int)threads, bytes, [] { run(*kernel_job, *kernel_end); });                          \
  }
