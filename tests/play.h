// CUDA's names for a C++ compiler, and what plays a kernel of kernel/gpu.h. The threads of a block are coroutines that
// switch at barriers, in one order and then in the reverse; with RACES, threads, for a sanitizer. The `team`
// neighbouring threads that train one network wait for each other: all of a block, or some of its one warp. The blocks
// of a cluster are played together, each as far as the next barrier of all; of other blocks AT_ONCE, each to its end or
// to where it waits for another. They begin in the order of their numbers or another one: CUDA promises none.
//
// play() returns what is wrong: a barrier that not all threads of a team reached, a write beyond the shared memory that
// was asked for, or a turn that never comes. Shared memory begins as NaN: a GPU promises nothing about its content.
// No header of C++'s containers: reading one takes a third of the time that a kernel takes to compile.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <ucontext.h>
#include <cstdint>
#include <cstdlib>
#include <cstring>

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
constexpr int MOST_BLOCKS = 8, MOST_THREADS = 1024;  // of a cluster
alignas(64) static double rooms[MOST_BLOCKS][ROOM / sizeof(double)];
static OF_THREAD double *shared;

#define __global__ __attribute__((visibility("default")))
#define __shared__
#define __grid_constant__
#define __builtin_assume(fact) ((fact) ? (void)0 : __builtin_trap())
#define __launch_bounds__(...)
#define __cluster_dims__(...)

enum Wrong { NOTHING, BARRIER_MISSED, BEYOND_SHARED, TURN_MISSED };
enum { ENDED = -1, IN_WARP = -2, IN_TURN = -3, STACK = 256 << 10, AT_ONCE = 4, MOST_ROUNDS = 1 << 17 };
static void (*kernel)();

// Copies to shared memory that a thread began: made as late as its waits allow.
struct Copy {
  void *to;
  const void *from;
  int bytes, group;
};
struct Copies {
  Copy *begun;
  int count, room, group;
};

constexpr int LANES = 32;  // of a warp

// The number of the block, or of the cluster, that begins as number `at`.
enum Order { ASCENDING, DESCENDING, SHUFFLED };
static Order order = ASCENDING;
static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }
static int64_t begins(int64_t at, int64_t all) {
  int64_t apart = 1 + all * 3 / 5;
  while (gcd(apart, all) > 1) apart++;
  return order == ASCENDING ? at : order == DESCENDING ? all - 1 - at : (at * apart + 1) % all;
}
static int block_at(int at, int cluster) {
  return (int)begins(at / cluster, gridDim.x / cluster) * cluster + at % cluster;
}
static void meet_in_warp();
static void let_others_run();

// Blocks take parts of a call, and wait for each other (gpu_pieces.h).
static unsigned atomicInc(unsigned *count, unsigned most) {
  unsigned old = __atomic_load_n(count, __ATOMIC_RELAXED), next;
  do next = old >= most ? 0 : old + 1;
  while (!__atomic_compare_exchange_n(count, &old, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
static void pass_turn(int64_t *turn, int64_t done) { __atomic_store_n(turn, done, __ATOMIC_RELEASE); }
static void wait_for_turn(const int64_t *turn, int64_t done) {
  while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != done) let_others_run();
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
static int members, in_block, first_block, in_cluster;
static pthread_barrier_t everyone;
static pthread_barrier_t meetings[MOST_THREADS], warps[MOST_THREADS], halls[MOST_BLOCKS];  // of teams, warps, blocks
#define __syncthreads() (void)pthread_barrier_wait(&halls[own->number / in_block])
#define __syncwarp(mask) ((void)(mask), (void)pthread_barrier_wait(&meetings[own->number / members]))

static void meet_in_warp() { pthread_barrier_wait(&warps[own->number / LANES]); }
static void let_others_run() { sched_yield(); }
static void wait_for_cluster() { pthread_barrier_wait(&everyone); }
static void *whole(void *thread) {
  own = (Thread *)thread;
  threadIdx.x = own->number % in_block, blockIdx.x = block_at(first_block + own->number / in_block, in_cluster);
  shared = rooms[own->number / in_block];
  wait_for_cluster();  // so that blocks run side by side
  kernel();
  return nullptr;
}
static void let_meet(pthread_barrier_t *barriers, int threads, int each) {
  for (int i = 0; i < threads / each; i++) pthread_barrier_init(barriers + i, nullptr, each);
}
static Wrong play_cluster(int first, int blocks, int threads, int team, char *, int cluster) {
  members = team, in_block = threads, first_block = first, in_cluster = cluster;
  const int all = blocks * threads;
  let_meet(meetings, all, team), let_meet(warps, all, LANES), let_meet(halls, all, threads);
  let_meet(&everyone, all, all);
  for (int t = 0; t < all; t++) {
    crowd[t].number = t;
    pthread_create(&crowd[t].handle, nullptr, whole, &crowd[t]);
  }
  for (int t = 0; t < all; t++) pthread_join(crowd[t].handle, nullptr);
  return NOTHING;
}
#else
struct Thread {
  ucontext_t context;
  Copies copies;
  int products;
  int at;         // the line of its barrier
  unsigned mask;  // of whom it waits for there, in a warp; or for its block, or for all blocks of a cluster
};
enum : unsigned { OF_CLUSTER = 0, OF_BLOCK = 1 };
static Thread *crowd, *own;
static ucontext_t scheduler;
#define __syncthreads() come_to(__LINE__, OF_BLOCK)
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

// Whether a thread of a block came to the barrier of its team, and waits there for this team alone, for its block, or
// for all blocks.
static bool met(const Thread *block, int thread, int threads, int team) {
  const Thread &one = block[thread], &first = block[thread / team * team];
  const unsigned whom = team == threads ? OF_BLOCK : ((1u << team) - 1) << (thread / team * team % 32);
  const bool known = one.mask == whom || one.mask == OF_BLOCK || one.mask == OF_CLUSTER;
  return one.at == first.at && (one.at == ENDED || (one.mask == first.mask && known));
}
// To its end, to a barrier of all blocks, or to where a thread waits for another block.
static Wrong play_block(Thread *block, int threads, int team) {
  auto apart = [&](int t) { return block[t].at == IN_WARP || block[t].at == IN_TURN; };
  for (bool backwards = false;; backwards = !backwards) {
    bool some_apart = false, still = false, waits = false, all_in_block = true, none = true;
    for (int t = 0; t < threads; t++) some_apart |= apart(t);  // then only these go on
    for (int t = 0; t < threads; t++) all_in_block &= block[t].at == block->at && block[t].mask == OF_BLOCK;
    for (int i = 0; i < threads; i++) {
      threadIdx.x = backwards ? threads - 1 - i : i;
      own = block + threadIdx.x;
      const bool free = all_in_block || own->mask != OF_BLOCK;
      if (own->at == ENDED || some_apart != apart(threadIdx.x) || !free) continue;
      none = false;
      swapcontext(&scheduler, &own->context);
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
    if (none) return BARRIER_MISSED;
  }
}
static Wrong play_cluster(int first, int blocks, int threads, int team, char *stacks, int cluster) {
  for (int t = 0; t < blocks * threads; t++) {
    getcontext(&crowd[t].context);
    crowd[t].context.uc_stack.ss_sp = stacks + (int64_t)t * STACK;
    crowd[t].context.uc_stack.ss_size = STACK;
    crowd[t].context.uc_link = &scheduler;
    makecontext(&crowd[t].context, whole, 0);
    crowd[t].at = 0, crowd[t].mask = OF_CLUSTER;
  }
  bool backwards = false;
  for (int rounds = 0; rounds < MOST_ROUNDS; rounds++, backwards = !backwards) {
    for (int i = 0; i < blocks; i++) {
      const int block = backwards ? blocks - 1 - i : i;
      blockIdx.x = block_at(first + block, cluster), shared = rooms[block];
      if (Wrong wrong = play_block(crowd + block * threads, threads, team)) return wrong;
    }
    bool all_ended = true;
    for (int t = 0; t < blocks * threads; t++) {
      all_ended &= crowd[t].at == ENDED;
      if (cluster > 1 && t % threads == 0 && crowd[t].at != crowd->at) return BARRIER_MISSED;
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
static Operands operands[2][MOST_THREADS];  // of two products in turn: all have read one before it is written again
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

template <int bytes>
static void begin_copy(void *to, const void *from) {
  Copies &copies = own->copies;
  if (copies.count == copies.room) copies.begun = (Copy *)realloc(copies.begun, (copies.room += 64) * sizeof(Copy));
  copies.begun[copies.count++] = {to, from, bytes, copies.group};
}
static void commit_copies() { own->copies.group++; }
template <int groups>
static void wait_for_copies_but() {  // 0: for all copies
  Copies &copies = own->copies;
  const int begun = copies.count;
  copies.count = 0;
  for (int i = 0; i < begun; i++) {
    const Copy each = copies.begun[i];
    if (groups && each.group >= copies.group - groups) copies.begun[copies.count++] = each;
    else memcpy(each.to, each.from, each.bytes);
  }
}
static void wait_for_copies() { wait_for_copies_but<0>(); }

// cluster: how many neighbouring blocks are one. Of other blocks AT_ONCE run at once.
static Wrong play_grid(int64_t blocks, int threads, int team, int cluster, int64_t bytes, void (*function)()) {
  Wrong wrong = blocks % cluster ? BARRIER_MISSED : NOTHING;
  const int most = cluster > 1 ? cluster : AT_ONCE;
  kernel = function;
  crowd = (Thread *)calloc(most * threads, sizeof(Thread));
  char *stacks = (char *)malloc((int64_t)most * threads * STACK);
  gridDim.x = (int)blocks;
  for (int64_t first = 0; first < blocks && !wrong; first += most) {
    const int some = (int)(blocks - first < most ? blocks - first : most);
    memset(rooms, 0xFF, most * ROOM);
    wrong = play_cluster((int)first, some, threads, team, stacks, cluster);
    for (int block = 0; block < some; block++)
      for (int64_t at = bytes; at < ROOM && !wrong; at++)
        if (((unsigned char *)rooms[block])[at] != 0xFF) wrong = BEYOND_SHARED;
  }
  for (int t = 0; t < most * threads; t++) free(crowd[t].copies.begun);
  free(stacks), free(crowd);
  return wrong;
}

// What kernels are given; who of a block waits for each other; and the entry, for behind a kernel's text.
static const struct Job *kernel_job;
static const struct End *kernel_end;
#define TEAM_OF(threads) (TEAMS_PER_BLOCK > 1 ? THREADS : (int)(threads))
#define PLAY                                                                                                       \
  extern "C" __global__ int play(                                                                           \
      const Job *job, const End *end, int64_t blocks, int64_t threads, int64_t bytes, int64_t in) {         \
    kernel_job = job, kernel_end = end, order = (Order)in;                                                  \
    auto run_one = [] { run(*kernel_job, *kernel_end); };                                                   \
    return play_grid(blocks, (int)threads, TEAM_OF(threads), BLOCKS_PER_TEAM, bytes, run_one);              \
  }
