// CUDA's names for a C++ compiler: a kernel of kernel/gpu.h, its blocks one after the other, the threads of a block as
// coroutines that switch at barriers, in one order and then in the reverse; with RACES as threads, for a sanitizer. The
// `team` neighbouring threads that train one network wait for each other: all of a block, or some of its one warp. The
// blocks of a cluster are played together, each as far as the next barrier of all; of others some, in their order, each
// to its end or to where it waits for another.
//
// play() returns what is wrong: a barrier that not all threads of a team reached, a write beyond the shared memory that
// was asked for, or a turn that never comes. Shared memory begins as NaN: a GPU promises nothing about its content.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <ucontext.h>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

struct Place {
  int x;
};
#ifdef RACES
#define OF_THREAD thread_local
#else
#define OF_THREAD
#endif
static Place gridDim;
static OF_THREAD Place blockIdx, threadIdx;
constexpr int64_t ROOM = 256 << 10;
constexpr int MOST_BLOCKS = 8;  // of a cluster
alignas(64) static double rooms[MOST_BLOCKS][ROOM / sizeof(double)];
static OF_THREAD double *shared;

#define __global__ __attribute__((visibility("default")))
#define __shared__
#define __grid_constant__
#define __builtin_assume(fact) ((fact) ? (void)0 : __builtin_trap())
#define __launch_bounds__(...)
#define __cluster_dims__(...)

enum Wrong { NOTHING, BARRIER_MISSED, BEYOND_SHARED, TURN_MISSED };
enum { ENDED = -1, IN_WARP = -2, IN_TURN = -3, STACK = 256 << 10, AT_ONCE = 4, MOST_ROUNDS = 1 << 20 };
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
static void let_others_run();

// A piece of a call waits for its turn (gpu_pieces.h).
static void play_pass(int64_t *turn, int64_t done) { __atomic_store_n(turn, done, __ATOMIC_RELEASE); }
static void play_wait(const int64_t *turn, int64_t piece) {
  while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != piece) let_others_run();
}

#ifdef RACES
struct Thread {
  pthread_t handle;
  int number;
  Copies copies;
  int products;
};
static Thread *crowd;
static thread_local Thread *own;
static int members, in_block, first_block;
static pthread_barrier_t everyone;
static std::vector<pthread_barrier_t> meetings, warps;
#define __syncthreads() (void)pthread_barrier_wait(&meetings[own->number / members])
#define __syncwarp(mask) ((void)(mask), __syncthreads())

static void meet_in_warp() { pthread_barrier_wait(&warps[own->number / LANES]); }
static void let_others_run() { sched_yield(); }
static void wait_for_cluster() { pthread_barrier_wait(&everyone); }
static void *whole(void *thread) {
  own = (Thread *)thread;
  threadIdx.x = own->number % in_block, blockIdx.x = first_block + own->number / in_block;
  shared = rooms[own->number / in_block];
  kernel();
  return nullptr;
}
static Wrong play_cluster(int first, int blocks, int threads, int team, char *, bool) {
  members = team, in_block = threads, first_block = first;
  const int all = blocks * threads;
  meetings.resize(all / team), warps.resize(all / LANES);
  for (auto &each : meetings) pthread_barrier_init(&each, nullptr, team);
  for (auto &each : warps) pthread_barrier_init(&each, nullptr, LANES);
  pthread_barrier_init(&everyone, nullptr, all);
  for (int t = 0; t < all; t++) {
    crowd[t].number = t;
    pthread_create(&crowd[t].handle, nullptr, whole, &crowd[t]);
  }
  for (int t = 0; t < all; t++) pthread_join(crowd[t].handle, nullptr);
  for (auto &each : meetings) pthread_barrier_destroy(&each);
  for (auto &each : warps) pthread_barrier_destroy(&each);
  pthread_barrier_destroy(&everyone);
  return NOTHING;
}
#else
struct Thread {
  ucontext_t context;
  Copies copies;
  int products;
  int at;         // the line of its barrier
  unsigned mask;  // of whom it waits for there, in a warp; OF_CLUSTER: for all blocks
};
enum : unsigned { OF_CLUSTER = 0 };
static Thread *crowd, *own;
static ucontext_t scheduler;
#define __syncthreads() come_to(__LINE__, ~0u)
#define __syncwarp(mask) come_to(__LINE__, mask)

static void come_to(int line, unsigned mask) {
  own->at = line;
  own->mask = mask;
  swapcontext(&own->context, &scheduler);
}
static void meet_in_warp() { come_to(IN_WARP, ~0u); }
static void let_others_run() { come_to(IN_TURN, ~0u); }
#define wait_for_cluster() come_to(__LINE__, OF_CLUSTER)
static void whole() {
  kernel();
  own->at = ENDED;
}

// Whether a thread of a block came to the barrier of its team, and waits there for this team alone, for the whole
// block, or for all blocks.
static bool met(const Thread *block, int thread, int threads, int team) {
  const Thread &one = block[thread], &first = block[thread / team * team];
  const unsigned whom = team == threads ? ~0u : ((1u << team) - 1) << (thread / team * team % 32);
  return one.at == first.at && (one.at == ENDED || (one.mask == first.mask && (one.mask == whom || !one.mask)));
}
// To its end, to a barrier of all blocks, or to where a thread waits for another block.
static Wrong play_block(Thread *block, int threads, int team) {
  auto apart = [&](int t) { return block[t].at == IN_WARP || block[t].at == IN_TURN; };
  for (bool backwards = false;; backwards = !backwards) {
    bool some_apart = false, still = false, waits = false;
    for (int t = 0; t < threads; t++) some_apart |= apart(t);  // then only these go on
    for (int i = 0; i < threads; i++) {
      threadIdx.x = backwards ? threads - 1 - i : i;
      own = block + threadIdx.x;
      if (own->at != ENDED && some_apart == apart(threadIdx.x)) swapcontext(&scheduler, &own->context);
    }
    for (int t = 0; t < threads; t++) {
      still |= apart(t), waits |= block[t].at == IN_TURN;
      if ((block[t].at == IN_WARP) != (block[t / LANES * LANES].at == IN_WARP)) return BARRIER_MISSED;
    }
    if (waits) return NOTHING;
    if (still) continue;
    bool all_ended = true;
    for (int t = 0; t < threads; t++) {
      if (!met(block, t, threads, team)) return BARRIER_MISSED;
      all_ended &= block[t].at == ENDED;
    }
    if (all_ended || block->mask == OF_CLUSTER) return NOTHING;
  }
}
static Wrong play_cluster(int first, int blocks, int threads, int team, char *stacks, bool one) {
  for (int t = 0; t < blocks * threads; t++) {
    getcontext(&crowd[t].context);
    crowd[t].context.uc_stack.ss_sp = stacks + (int64_t)t * STACK;
    crowd[t].context.uc_stack.ss_size = STACK;
    crowd[t].context.uc_link = &scheduler;
    makecontext(&crowd[t].context, whole, 0);
    crowd[t].at = 0;
  }
  bool backwards = false;
  for (int rounds = 0; rounds < MOST_ROUNDS; rounds++, backwards = !backwards) {
    for (int i = 0; i < blocks; i++) {
      const int block = backwards ? blocks - 1 - i : i;
      blockIdx.x = first + block, shared = rooms[block];
      if (Wrong wrong = play_block(crowd + block * threads, threads, team)) return wrong;
    }
    bool all_ended = true;
    for (int t = 0; t < blocks * threads; t++) {
      all_ended &= crowd[t].at == ENDED;
      if (one && t % threads == 0 && crowd[t].at != crowd->at) return BARRIER_MISSED;
    }
    if (all_ended) return NOTHING;
  }
  return TURN_MISSED;
}
#endif

// mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32, whose lanes have of A, B and C what NVIDIA's PTX ISA says. Of
// operands the digits that tf32 has not are dropped. Products are exact, sums in the order of k, of which a lane brings
// two neighbours, if paired: a GPU's may be in another, and rounded otherwise.
struct Operands {
  uint32_t a[4], b[2];
};
static Operands operands[2][1024];  // of two products in turn, so that all have read one before it is written again
static void play_mma(float *above, float *below, const uint32_t (&a)[4], const uint32_t (&b)[2], bool paired) {
  const int number = own - crowd, lane = number % LANES, first = number - lane;
  Operands *brought = operands[own->products++ % 2];
  memcpy(brought[number].a, a, sizeof a), memcpy(brought[number].b, b, sizeof b);
  meet_in_warp();
  auto digits = [](uint32_t bits) {
    float x;
    bits &= 0xffffe000;
    memcpy(&x, &bits, sizeof x);
    return x;
  };
  for (int half = 0; half < 2; half++)
    for (int j = 0; j < 2; j++)
      for (int k = 0; k < 8; k++) {
        const int from = paired ? k / 2 : k % 4, part = paired ? k % 2 : k / 4;
        const float left = digits(brought[first + lane / 4 * 4 + from].a[half + part * 2]);
        const float right = digits(brought[first + (lane % 4 * 2 + j) * 4 + from].b[part]);
        float *sum = (half ? below : above) + j;  // of the row lane / 4, and the one 8 rows below
        *sum = __builtin_fmaf(left, right, *sum);
      }
}

static void copy_later(void *to, const void *from, int bytes) {
  Copies &copies = own->copies;
  copies.begun.push_back({to, from, bytes, copies.group});
}
static void group_copies() { own->copies.group++; }
static void copy_all_but(int groups) {  // the last groups; 0: all copies
  Copies &copies = own->copies;
  size_t kept = 0;
  for (const Copy &each : copies.begun)
    if (groups && each.group >= copies.group - groups) copies.begun[kept++] = each;
    else memcpy(each.to, each.from, each.bytes);
  copies.begun.resize(kept);
}

// cluster: how many neighbouring blocks are one. Of other blocks AT_ONCE run at once.
static Wrong play_grid(int64_t blocks, int threads, int team, int cluster, int64_t bytes, void (*function)()) {
  Wrong wrong = blocks % cluster ? BARRIER_MISSED : NOTHING;
  const int most = cluster > 1 ? cluster : AT_ONCE;
  kernel = function;
  crowd = new Thread[most * threads]();
  char *stacks = (char *)malloc((int64_t)most * threads * STACK);
  gridDim.x = (int)blocks;
  for (int64_t first = 0; first < blocks && !wrong; first += most) {
    const int some = (int)(blocks - first < most ? blocks - first : most);
    memset(rooms, 0xFF, most * ROOM);
    wrong = play_cluster((int)first, some, threads, team, stacks, cluster > 1);
    for (int block = 0; block < some; block++)
      for (int64_t at = bytes; at < ROOM && !wrong; at++)
        if (((unsigned char *)rooms[block])[at] != 0xFF) wrong = BEYOND_SHARED;
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
    auto run_one = [] { run(*kernel_job, *kernel_end); };                                                          \
    return play_grid(blocks, (int)threads, TEAM_OF(threads), BLOCKS_PER_TEAM, bytes, run_one);                     \
  }
