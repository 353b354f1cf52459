// The CPU's launch: networks into groups, groups onto threads; or all threads onto one network after the other (TEAM).
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

// A thread begins on a processor of its own, and goes on wherever the scheduler moves it. Left to itself, a scheduler
// that takes a virtual processor at rest for a busy one begins all of them on the caller's, and needs some 10 ms to
// notice (Linux 6.18 under KVM: half of the rate of short calls).
struct Processors {
#ifdef __linux__
  cpu_set_t allowed;
  bool known;
  void look() { known = !sched_getaffinity(0, sizeof allowed, &allowed); }
  bool choose(pthread_attr_t *attributes, int number) const {  // the `number`th from the caller's on
    if (!known) return false;
    int at = sched_getcpu();
    for (int left = number % CPU_COUNT(&allowed); left > 0;) left -= CPU_ISSET(at = (at + 1) % CPU_SETSIZE, &allowed);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(at, &one);
    return !pthread_attr_setaffinity_np(attributes, sizeof one, &one);
  }
  void release() const {
    if (known) sched_setaffinity(0, sizeof allowed, &allowed);
  }
#else
  void look() {}
  bool choose(pthread_attr_t *, int) const { return false; }
  void release() const {}
#endif
};

struct Crew {  // what the threads of a call share
  const Job *job;
  const int64_t *who, *left;  // networks by steps to take, the most first; null: all of them, `same` steps
  int64_t active, same;
  const int32_t *table;       // (steps BATCH): samples, where all networks take the same
  int64_t next;               // the group to be taken next
  int64_t faults;             // networks with a number that was not finite
  void *block;                // of a team: its numbers, and the group behind them
  Processors processors;
#if TEAM
  Team team;
#endif
};
struct Thread {
  Crew *crew;
  int number;
  pthread_t handle;
};

// A group's memory, zeroed, so that padding holds numbers; null where there is none.
constexpr size_t SIZE = ((size_t)NUMBERS * sizeof(s) + 63) / 64 * 64;
static void *reserve() {
  size_t page = SIZE < (1 << 18) ? 4096 : 1 << 21, bytes = (SIZE + sizeof(Group) + page - 1) / page * page;
  void *block = aligned_alloc(page, bytes);
  if (!block) return nullptr;
#ifdef MADV_HUGEPAGE
  if (page > 4096) madvise(block, bytes, MADV_HUGEPAGE);  // where memory is in pieces; here it made no difference
#endif
  return memset(block, 0, bytes);
}

static Who group_of(const Crew &crew, int64_t group, int64_t *rows, int64_t *left) {
  bool neighbours = !crew.who && (group + 1) * NETWORKS <= crew.active;
  if (neighbours) {
    for (int n = 0; n < NETWORKS; n++) rows[n] = group * NETWORKS + n, left[n] = crew.same;
    return {rows, neighbours};
  }
  for (int n = 0; n < NETWORKS; n++) {
    int64_t at = group * NETWORKS + n;
    bool there = at < crew.active;
    if (!there) at = group * NETWORKS;
    rows[n] = crew.who ? crew.who[at] : at;
    left[n] = !there ? 0 : crew.left ? crew.left[at] : crew.same;
  }
  return {rows, neighbours};
}

// left: steps of each network to take; else, 0 for a lane without one.
FN void act(Crew &crew, void *block, Who who, const int64_t *left) {
  const Job *job = crew.job;
  const Work k = {Memory{(s *)block}, (Group *)((char *)block + SIZE), job, nullptr, &crew.faults, job->check != 0};
#if TASK == TRAIN
  train(k, who, left, crew.table);
#else
  bool there[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) there[n] = left[n] > 0;
  tell(k, who, there);
#endif
}

static void *work(void *given) {
  Thread &thread = *(Thread *)given;
  Crew &crew = *thread.crew;
  int64_t groups = (crew.active + NETWORKS - 1) / NETWORKS, rows[NETWORKS], left[NETWORKS];
  if (thread.number) crew.processors.release();
  fenv_t before;
  fegetenv(&before);
  fesetenv(FE_DFL_ENV);  // denormal numbers are kept, whatever the caller's thread does with them
#if TEAM
  team = &crew.team, member = thread.number;
  while (!(members = __atomic_load_n(&crew.team.size, __ATOMIC_ACQUIRE))) sched_yield();  // until all have come
  for (int64_t group = 0; group < groups; group++) {
    Who who = group_of(crew, group, rows, left);
    act(crew, crew.block, who, left);
    BARRIER
  }
#else
  if (void *block = reserve()) {
    for (;;) {
      int64_t group = __atomic_fetch_add(&crew.next, 1, __ATOMIC_RELAXED);
      if (group >= groups) break;
      Who who = group_of(crew, group, rows, left);
      act(crew, block, who, left);
    }
    free(block);
  }
#endif
  fesetenv(&before);
  return nullptr;
}

struct Waiting {
  int64_t who, left;
};
static int by_left(const void *x, const void *y) {
  const Waiting &a = *(const Waiting *)x, &b = *(const Waiting *)y;
  return a.left != b.left ? (a.left < b.left ? 1 : -1) : (a.who > b.who) - (a.who < b.who);
}

// Samples of the next `steps` steps of networks that all stand at `step` and take the same.
static void tabulate(const Job &job, int64_t step, int64_t steps, int32_t *table) {
  int64_t pass = -1;
  uint32_t size = (uint32_t)job.samples, a = root_up(size), b = (size + a - 1) / a, key = 0;
  for (int64_t p = 0; p < steps * BATCH; p++) {
    int64_t position = step * BATCH + p;
    uint32_t place = (uint32_t)(position % size);
    if (SHUFFLE && position / size != pass) key = pass_key((uint32_t)job.seed, EVERYBODY, pass = position / size);
    uint32_t left[] = {place / b}, right[] = {place % b}, keys[] = {key}, found[] = {place};
    if (SHUFFLE) permute(left, right, keys, size, a, b, found);
    table[p] = (int32_t)found[0];
  }
}

enum Answer { DONE = 0, FAULTS = 1, STEPS_DIFFER = 2, NO_MEMORY = 3 };

// All threads to work; the caller's is the first of them.
static Answer start(Crew &crew) {
  if (!crew.active) return DONE;
  int64_t groups = (crew.active + NETWORKS - 1) / NETWORKS, threads = crew.job->threads;
  if (!TEAM && groups < threads) threads = groups;
#if TEAM
  crew.team = {0, 0, 0};
  if (!(crew.block = reserve())) return NO_MEMORY;
#endif
  Thread *crowd = (Thread *)malloc(threads * sizeof(Thread));
  if (!crowd) return free(crew.block), NO_MEMORY;
  int64_t started = 1;
  if (threads > 1) crew.processors.look();
  for (; started < threads; started++) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    bool chosen = crew.processors.choose(&attributes, (int)started);
    crowd[started] = {&crew, (int)started, {}};
    Thread &own = crowd[started];
    bool failed = pthread_create(&own.handle, chosen ? &attributes : nullptr, work, &own) &&
                  (!chosen || pthread_create(&own.handle, nullptr, work, &own));
    pthread_attr_destroy(&attributes);
    if (failed) break;  // then with those there are
  }
#if TEAM
  __atomic_store_n(&crew.team.size, (int)started, __ATOMIC_RELEASE);
#endif
  crowd[0] = {&crew, 0, {}};
  work(&crowd[0]);
  for (int64_t t = 1; t < started; t++) pthread_join(crowd[t].handle, nullptr);
  free(crowd);
  free(crew.block);
  return !TEAM && crew.next < groups ? NO_MEMORY : DONE;
}

#if TASK == TRAIN

// The networks that take steps, by how many, the most first, and behind them how many -> false without memory.
static bool list(const Job &job, Crew &crew, int64_t *&lists) {
  Waiting *waiting = (Waiting *)malloc(crew.active * sizeof(Waiting));
  lists = (int64_t *)malloc(2 * crew.active * sizeof(int64_t));
  if (waiting && lists) {
    int64_t at = 0;
    for (int64_t n = 0; n < job.count; n++) {
      if (int64_t left = left_of(job, n)) waiting[at++] = {n, left};
    }
    qsort(waiting, crew.active, sizeof(Waiting), by_left);
    for (at = 0; at < crew.active; at++) lists[at] = waiting[at].who, lists[crew.active + at] = waiting[at].left;
    crew.who = lists, crew.left = lists + crew.active;
  }
  free(waiting);
  return crew.who;
}

// Advance every running network by up to job.steps steps, not beyond its limit.
extern "C" __attribute__((visibility("default"))) int run(const Job *given) {
  const Job &job = *given;
  Crew crew = {};
  crew.job = &job;
  int64_t apart = 0, active = 0, longest = 0, shortest = job.steps, earliest = INT64_MAX, latest = -1;
  for (int64_t n = 0; n < job.count; n++)
    apart |= job.status[n] | (job.step[n] ^ job.step[0]) | (job.limit[n] ^ job.limit[0]);
  for (int64_t n = 0; n < (apart ? job.count : job.count > 0); n++) {  // one stands for all, where they are alike
    int64_t left = left_of(job, n), step = job.step[n];
    active += left > 0;
    longest = left > longest ? left : longest;
    shortest = left < shortest ? left : shortest;
    earliest = left > 0 && step < earliest ? step : earliest;
    latest = left > 0 && step > latest ? step : latest;
  }
  if (!apart) active *= job.count;
  if (!active) return DONE;
  if (!OWN && earliest < latest) return STEPS_DIFFER;
  crew.active = active, crew.same = longest;
  int64_t *lists = nullptr;
  int32_t *table = nullptr;
  Answer answer = shortest == longest || list(job, crew, lists) ? DONE : NO_MEMORY;
  if (answer == DONE && !OWN) {
    table = (int32_t *)malloc(longest * BATCH * sizeof(int32_t));
    if (table) tabulate(job, earliest, longest, table);
    else answer = NO_MEMORY;
    crew.table = table;
  }
  if (answer == DONE) answer = start(crew);
  if (answer == DONE && crew.faults) answer = FAULTS;
  free(table);
  free(lists);
  return answer;
}

#else

// The outs of all networks for all samples, or their figures.
extern "C" __attribute__((visibility("default"))) int shown(const Job *given) {
  Crew crew = {};
  crew.job = given;
  crew.active = given->count;
  crew.same = 1;
  return start(crew);
}

#endif
