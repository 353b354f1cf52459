// The CPU's entry. Networks are divided into groups, and threads take one group after the other; or, with TEAM, all
// threads train one network together, then the next.
#pragma once
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#if TASK == TRAIN
#include "call.h"
#else
#include "show.h"
#endif

// Each thread starts pinned to a processor of its own, then may be moved. A scheduler that mistakes an idle virtual
// processor for a busy one starts all threads on the caller's, and takes some 10 ms to move them (Linux 6.18 under KVM:
// half of the rate of short calls).
struct Processors {
#ifdef __linux__
  cpu_set_t allowed;
  bool known;
  void find() { known = !sched_getaffinity(0, sizeof allowed, &allowed); }
  bool pin(pthread_attr_t *attributes, int number) const {  // to the `number`th processor after the caller's
    if (!known) return false;
    int at = sched_getcpu();
    for (int left = number % CPU_COUNT(&allowed); left > 0;) left -= CPU_ISSET(at = (at + 1) % CPU_SETSIZE, &allowed);
    cpu_set_t chosen;
    CPU_ZERO(&chosen);
    CPU_SET(at, &chosen);
    return !pthread_attr_setaffinity_np(attributes, sizeof chosen, &chosen);
  }
  void unpin() const {  // the calling thread
    if (known) sched_setaffinity(0, sizeof allowed, &allowed);
  }
#else
  void find() {}
  bool pin(pthread_attr_t *, int) const { return false; }
  void unpin() const {}
#endif
};

FN void use_shape([[maybe_unused]] const Job &job) {  // in the calling thread
#if GENERAL
  shape = job.shape;
#endif
}

struct Shared {  // what the threads of a call share
  const Job *job;
  const int64_t *networks;  // (active): those that take steps, the most first; null: all of Job's
  const int64_t *steps;     // (active): how many each takes; null: all take max_steps
  int64_t active, max_steps;
  const int32_t *table;     // (max_steps, BATCH): samples, where all networks take the same
  int64_t next_group;       // that no thread has taken yet
  int64_t diverged;         // networks with a number that was not finite
  void *block;              // a team's Memory, and behind it its Group
  Processors processors;
#if TEAM
  Team team;
#endif
};
struct Thread {
  Shared *shared;
  int number;
  pthread_t handle;
};

// Room for a group's Memory and Group, zeroed, so that padding is finite; null if there is no memory. Large pages are
// for long calls, and much memory: zeroing one takes longer than a few steps.
#define MEMORY_BYTES (((size_t)MEMORY_ENTRIES * sizeof(entry) + 63) / 64 * 64)
static void *reserve(const Shared &shared) {
  bool large = MEMORY_BYTES >= (1 << (shared.active * shared.max_steps < 256 ? 21 : 18));
  size_t needed = MEMORY_BYTES + GROUP_BYTES, page = large ? 1 << 21 : 64;
  size_t bytes = (needed + page - 1) / page * page;
  void *block = aligned_alloc(page, bytes);
  if (!block) return nullptr;
#ifdef MADV_HUGEPAGE
  if (large) madvise(block, bytes, MADV_HUGEPAGE);  // for fragmented memory; no difference was measured
#endif
  return memset(block, 0, needed);
}

// The networks of a group and their steps. A lane beyond the last network repeats the group's first one, for 0 steps.
static Networks group_of(const Shared &shared, int64_t group, int64_t *rows, int64_t *steps) {
  bool contiguous = !shared.networks && (group + 1) * NETWORKS <= shared.active;
  if (contiguous) {
    for (int n = 0; n < NETWORKS; n++) rows[n] = group * NETWORKS + n, steps[n] = shared.max_steps;
    return {rows, contiguous};
  }
  for (int n = 0; n < NETWORKS; n++) {
    int64_t at = group * NETWORKS + n;
    bool is_network = at < shared.active;
    if (!is_network) at = group * NETWORKS;
    rows[n] = shared.networks ? shared.networks[at] : at;
    steps[n] = !is_network ? 0 : shared.steps ? shared.steps[at] : shared.max_steps;
  }
  return {rows, contiguous};
}

FN void run_group(Shared &shared, void *block, Networks networks, const int64_t *steps) {
  const Job *job = shared.job;
  Group *group = (Group *)((char *)block + MEMORY_BYTES);
#if GENERAL
  double *sums = (double *)(group + 1);
  group->index = (int32_t (*)[1])(sums + SUMS);
#if TASK == EVALUATE
  group->sums = (double (*)[1])sums;
#endif
#endif
  const Context ctx = {Memory{(entry *)block}, group, job, nullptr, &shared.diverged, job->dry_run != 0};
#if TASK == TRAIN
  train(ctx, networks, steps, shared.table);
#else
  bool is_network[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) is_network[n] = steps[n] > 0;
  show(ctx, networks, is_network);
#endif
}

static void *run_thread(void *given) {
  Thread &thread = *(Thread *)given;
  Shared &shared = *thread.shared;
  use_shape(*shared.job);
  int64_t groups = (shared.active + NETWORKS - 1) / NETWORKS, rows[NETWORKS], steps[NETWORKS];
  if (thread.number) shared.processors.unpin();
  fenv_t before;
  fegetenv(&before);
  fesetenv(FE_DFL_ENV);  // keep denormal numbers, whatever the caller's thread does with them
#if TEAM
  team = &shared.team, rank = thread.number;
  while (!(team_size = __atomic_load_n(&team->size, __ATOMIC_ACQUIRE))) sched_yield();  // until all are started
  for (int64_t group = 0; group < groups; group++) {
    Networks networks = group_of(shared, group, rows, steps);
    run_group(shared, shared.block, networks, steps);
    BARRIER
  }
#else
  if (void *block = reserve(shared)) {
    for (;;) {
      int64_t group = __atomic_fetch_add(&shared.next_group, 1, __ATOMIC_RELAXED);
      if (group >= groups) break;
      Networks networks = group_of(shared, group, rows, steps);
      run_group(shared, block, networks, steps);
    }
    free(block);
  }
#endif
  fesetenv(&before);
  return nullptr;
}

struct Active {
  int64_t network, steps;
};
static int most_steps_first(const void *x, const void *y) {
  const Active &a = *(const Active *)x, &b = *(const Active *)y;
  return a.steps != b.steps ? (a.steps < b.steps ? 1 : -1) : (a.network > b.network) - (a.network < b.network);
}

// The samples of the next `steps` steps of networks that all are at step `step` and take the same samples.
static void fill_table(const Job &job, int64_t step, int64_t steps, int32_t *table) {
  int64_t pass = -1;
  uint32_t size = (uint32_t)job.samples, a = root_up(size), b = (size + a - 1) / a, key = 0;
  for (int64_t p = 0; p < steps * BATCH; p++) {
    int64_t position = step * BATCH + p;
    uint32_t place = (uint32_t)(position % size);
    if (SHUFFLE && position / size != pass) key = pass_key((uint32_t)job.seed, ALL_NETWORKS, pass = position / size);
    uint32_t left[] = {place / b}, right[] = {place % b}, keys[] = {key}, found[] = {place};
    if (SHUFFLE) permute(left, right, keys, size, a, b, found);
    table[p] = (int32_t)found[0];
  }
}

enum Answer { DONE = 0, FAULTS = 1, STEPS_DIFFER = 2, NO_MEMORY = 3 };

// Run all groups on Job.threads threads; the caller's is the first of them.
static Answer run_threads(Shared &shared) {
  if (!shared.active) return DONE;
  int64_t groups = (shared.active + NETWORKS - 1) / NETWORKS, count = shared.job->threads;
  if (!TEAM && groups < count) count = groups;
#if TEAM
  shared.team = {0, 0, 0};
  if (!(shared.block = reserve(shared))) return NO_MEMORY;
#endif
  Thread *threads = (Thread *)malloc(count * sizeof(Thread));
  if (!threads) return free(shared.block), NO_MEMORY;
  int64_t started = 1;
  if (count > 1) shared.processors.find();
  for (; started < count; started++) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    bool pinned = shared.processors.pin(&attributes, (int)started);
    threads[started] = {&shared, (int)started, {}};
    Thread &thread = threads[started];
    bool failed = pthread_create(&thread.handle, pinned ? &attributes : nullptr, run_thread, &thread) &&
                  (!pinned || pthread_create(&thread.handle, nullptr, run_thread, &thread));
    pthread_attr_destroy(&attributes);
    if (failed) break;  // those that are started do all the work
  }
#if TEAM
  __atomic_store_n(&shared.team.size, (int)started, __ATOMIC_RELEASE);
#endif
  threads[0] = {&shared, 0, {}};
  run_thread(&threads[0]);
  for (int64_t t = 1; t < started; t++) pthread_join(threads[t].handle, nullptr);
  free(threads);
  free(shared.block);
  return !TEAM && shared.next_group < groups ? NO_MEMORY : DONE;
}

#if TASK == TRAIN

// Shared.networks and steps, in `lists` -> false without memory.
static bool list_networks(const Job &job, Shared &shared, int64_t *&lists) {
  Active *active = (Active *)malloc(shared.active * sizeof(Active));
  lists = (int64_t *)malloc(2 * shared.active * sizeof(int64_t));
  if (active && lists) {
    int64_t at = 0;
    for (int64_t n = 0; n < job.count; n++) {
      if (int64_t steps = steps_of(job, n)) active[at++] = {n, steps};
    }
    qsort(active, shared.active, sizeof(Active), most_steps_first);
    for (at = 0; at < shared.active; at++)
      lists[at] = active[at].network, lists[shared.active + at] = active[at].steps;
    shared.networks = lists, shared.steps = lists + shared.active;
  }
  free(active);
  return shared.networks;
}

// Advance every running network by up to job.steps steps, not beyond its limit.
extern "C" __attribute__((visibility("default"))) int run(const Job *given) {
  const Job &job = *given;
  Shared shared = {};
  use_shape(job);
  shared.job = &job;
  int64_t differ = 0, active = 0, longest = 0, shortest = job.steps, earliest = INT64_MAX, latest = -1;
  for (int64_t n = 0; n < job.count; n++)
    differ |= job.status[n] | (job.step[n] ^ job.step[0]) | (job.limit[n] ^ job.limit[0]);
  for (int64_t n = 0; n < (differ ? job.count : job.count > 0); n++) {  // the first is like all if they do not differ
    int64_t steps = steps_of(job, n), step = job.step[n];
    active += steps > 0;
    longest = steps > longest ? steps : longest;
    shortest = steps < shortest ? steps : shortest;
    earliest = steps > 0 && step < earliest ? step : earliest;
    latest = steps > 0 && step > latest ? step : latest;
  }
  if (!differ) active *= job.count;
  if (!active) return DONE;
  if (!OWN_SAMPLES && earliest < latest) return STEPS_DIFFER;
  shared.active = active, shared.max_steps = longest;
  int64_t *lists = nullptr;
  int32_t *table = nullptr;
  Answer answer = shortest == longest || list_networks(job, shared, lists) ? DONE : NO_MEMORY;
  if (answer == DONE && !OWN_SAMPLES) {
    table = (int32_t *)malloc(longest * BATCH * sizeof(int32_t));
    if (table) fill_table(job, earliest, longest, table);
    else answer = NO_MEMORY;
    shared.table = table;
  }
  if (answer == DONE) answer = run_threads(shared);
  if (answer == DONE && shared.diverged) answer = FAULTS;
  free(table);
  free(lists);
  return answer;
}

#else

// Job.figures of all networks.
extern "C" __attribute__((visibility("default"))) int shown(const Job *given) {
  Shared shared = {};
  use_shape(*given);
  shared.job = given;
  shared.active = given->count;
  shared.max_steps = 1;
  return run_threads(shared);
}

#endif
