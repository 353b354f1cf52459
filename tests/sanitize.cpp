// A whole program around a generated kernel, for the sanitizers: test_sanitizers.py puts the kernel's text before it.
//
// Every array is a block of its own, as long as it must be and no longer, and begins at an address that suits its
// elements and no vector. `program count threads` trains `count` networks twice, then once more with a network that
// has a NaN, and prints every number that a call may change; or it computes losses and metrics. SETTINGS are
// the hyper-parameters, NUMBERS the shape of a general kernel.
#include <cstdio>
#include <cstdlib>

static uint64_t state = 1;
static double uniform() {  // Knuth's multiplier and increment, the upper bits
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 40) / (1 << 24);
}
#define EXPECT(what) \
  if (!(what)) return fprintf(stderr, "line %d: not so: %s\n", __LINE__, #what), 1;

static void *blocks[64];
static int used = 0;
template <class T, class F>
static T *array(int64_t size, F fill) {
  char *block = (char *)malloc((size + 1) * sizeof(T));
  T *p = (T *)block + 1;
  blocks[used++] = block;
  for (int64_t i = 0; i < size; i++) p[i] = (T)fill(i);
  return p;
}
struct alignas(16) Sixteen {  // bytes, at an address that suits a GPU's loads
  double x[2];
  explicit Sixteen(double number) : x{number, number} {}
};
template <class T>
static bool print(const char *name, const T *numbers, int64_t size) {
  bool finite = true;
  printf("%s", name);
  for (int64_t i = 0; i < size; i++) {
    printf(" %a", (double)numbers[i]);
    finite = finite && __builtin_isfinite((double)numbers[i]);
  }
  printf("\n");
  return finite;
}

#if ON_GPU  // a GPU's kernel, played; it notes by itself who diverged
enum { DONE, FAR_BLOCKS = 2 };
static End end;
static int run(const Job *job) {
  kernel_job = job, kernel_end = &end;
  const int threads = THREADS * TEAMS_PER_BLOCK, networks = TEAM ? TEAMS_PER_BLOCK : threads;
  const int64_t teams = (job->count + networks - 1) / networks;
  end.parts = end.whole = teams;
  if (end.tickets) {  // all networks are cut
    const bool many = LANES_ARE_OUTPUTS || FAR_ENTRIES > 0;  // parts of a block
    end.whole = 0, end.share = many ? job->steps + 1 : (job->steps + 1) / 2;
    end.parts = many ? (teams * job->steps + end.share - 1) / end.share : teams * 2;
  }
  const int64_t grid = FAR_ENTRIES && end.parts > FAR_BLOCKS ? FAR_BLOCKS : end.parts;
  order = (Order)((order + 1) % 3);
  auto run_one = [] { run(*kernel_job, *kernel_end); };
  return play_grid(grid * BLOCKS_PER_TEAM, threads, TEAM_OF(threads), BLOCKS_PER_TEAM, SHARED_BYTES, run_one);
}
static int shown(const Job *job) { return run(job); }
#endif

int main(int, char **arguments) {
  const int64_t N = atol(arguments[1]), M = 11, longest = 7, stopped = 2, broken = 1;
#if GENERAL
  shape = NUMBERS;
#endif
  const int I = WIDTH[0], O = OUTPUTS;
  auto random = [](int64_t) { return uniform() * 1.2 - 0.6; };
  auto zero = [](int64_t) { return 0; };
  auto one = [](int64_t) { return 1; };
  auto up_to_one = [](int64_t) { return uniform(); };
  Job job = {};
#if GENERAL
  job.shape = shape;
#endif
  job.count = N, job.samples = M, job.seed = 5, job.steps = 3, job.threads = atol(arguments[2]);
  job.params = array<real>(N * P, random);
  for (int s = 0; s < SLOTS; s++) job.slots[s] = array<real>(N * P, zero);
  for (int h = 0; h < HYPERS; h++) job.hyper[h] = array<double>(N, [&](int64_t) { return SETTINGS[h]; });
  for (int c = 0; c < NETWORK_SLOTS; c++) job.network_slots[c] = array<double>(N, one);
  if (CLASS_WEIGHT) job.class_weight = array<double>(N * O, up_to_one);
  job.ids = array<int64_t>(N, [](int64_t n) { return 3 * n + 1; });
  job.position = array<int64_t>(N, [&](int64_t n) { return N - 1 - n; });
  job.step = array<int64_t>(N, [](int64_t n) { return OWN_SAMPLES ? n % 4 : 4; });
  int64_t *limit = array<int64_t>(N, [&](int64_t n) { return job.step[n] + (n == N - 1 ? 2 : 5); });
  job.limit = limit;
  job.end = array<int64_t>(N, [](int64_t) { return 20; });
  int8_t *status = array<int8_t>(N, [](int64_t n) { return n == stopped; });
  job.status = status;
  job.loss = array<real>(N, zero);
  job.total = array<double>(N, zero);
  const int64_t each = OWN_INPUTS ? N * M : M;
  job.inputs = array<real>(each * I, random);
  if (TARGET_IS_CLASS) job.classes = array<int64_t>(each, [&](int64_t) { return (int64_t)(uniform() * O); });
  else job.targets = array<real>(each * O, [](int64_t) { return uniform() < 0.5; });
  job.spread = array<double>(N * O, one);
  if (SAMPLE_WEIGHT) job.weights = array<real>(SAMPLE_WEIGHT == 2 ? N * M : M, up_to_one);
  if (SUBSETS) {
    job.subset = array<int64_t>(N * longest, [&](int64_t) { return (int64_t)(uniform() * M); });
    job.sizes = array<int64_t>(N, [&](int64_t n) { return 1 + n % longest; });
    job.starts = array<int64_t>(N, [&](int64_t n) { return n * longest; });
  }
  job.taken = array<int64_t>(N, zero);
  job.figures = array<double>(2 * N, zero);
  job.spread = array<double>((SUBSETS || OWN_INPUTS || SAMPLE_WEIGHT == 2 ? N : 1) * O, one);

#if ON_GPU
  end.turn = array<int64_t>(N, zero);
  end.tickets = TASK == TRAIN && BLOCKS_PER_TEAM == 1 ? array<unsigned>(1, zero) : nullptr;
  const int64_t bytes = (int64_t)FAR_BLOCKS * TEAMS_PER_BLOCK * FAR_ENTRIES * sizeof(real);
  end.far = (real *)array<Sixteen>((bytes + 15) / 16, random);
#endif
#if TASK == EVALUATE
  EXPECT(shown(&job) == DONE);
  EXPECT(print("loss", job.figures, N));
  print("metric", job.figures + N, N);  // NaN of a network with one sample
#else
  auto show = [&] {
    bool finite = print("params", job.params, N * P) && print("loss", job.loss, N) && print("total", job.total, N);
    for (int s = 0; s < SLOTS; s++) finite = print("slot", job.slots[s], N * P) && finite;
    for (int c = 0; c < NETWORK_SLOTS; c++) finite = print("column", job.network_slots[c], N) && finite;
    return print("step", job.step, N) && print("taken", job.taken, N) && finite;
  };
  for (int call = 0; call < 2; call++) {
    EXPECT(run(&job) == DONE);
    EXPECT(show());
    EXPECT(job.step[stopped] == (OWN_SAMPLES ? stopped % 4 : 4));
    for (int64_t n = 0; n < N; n++) EXPECT(job.taken[n] == 0);
#if ON_GPU
    for (int64_t n = 0; n < N; n++) EXPECT(end.turn[n] == 0 && (!end.tickets || *end.tickets == 0));
#endif
    if (!OWN_SAMPLES) limit[N - 1] = job.step[N - 1];  // where networks share their samples, they stand at one step
  }
  for (int64_t n = 0; n < N; n++) limit[n] = OWN_SAMPLES || n < N - 1 ? job.step[n] + 2 : job.step[n];
  job.params[broken * P] = __builtin_nan("");
#if ON_GPU
  end.status = status, end.diverged = array<int64_t>(N, zero);
  EXPECT(run(&job) == DONE);
  for (int64_t n = 0; n < N; n++) EXPECT((status[n] == DIVERGED) == (n == broken));
  EXPECT(end.diverged[broken] == job.step[broken]);
#else
  for (job.dry_run = 1; job.dry_run >= 0; job.dry_run--) {
    int64_t before = job.step[broken];
    for (int64_t n = 0; n < N; n++) job.taken[n] = 0;
    EXPECT(run(&job) == FAULTS);
    EXPECT(job.taken[broken] < 0 && (!job.dry_run || job.taken[broken] == -1) && job.step[broken] == before);
    for (int64_t n = 0; n < N; n++) EXPECT(n == broken || job.taken[n] >= 0);
  }
#endif
  job.params[broken * P] = 0;
  EXPECT(show());
#endif
  while (used) free(blocks[--used]);
  return 0;
}
