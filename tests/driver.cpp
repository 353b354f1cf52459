// A CUDA driver (libcuda.so.1) for NVIDIA's own bindings, as far as engines/device.py calls it. A module is the path of a
// library whose kernel a CPU plays (play.h); what a driver would refuse is refused, with its numbers.
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719 };
enum { SHARED_OF_A_FUNCTION = 8, SHARED_OF_A_BLOCK = 97, MOST_SHARED = 227 << 10, BLOCKS = 2 };
static void *const STREAM = (void *)77;
typedef int Play(const void *, const void *, int64_t, int64_t, int64_t);
static int allowed = 0;  // a driver allows 48 KB unasked
static bool awake = false;
static int primary;                                 // the one context
static thread_local const void *current = nullptr;  // a new thread has none

static int init(unsigned) { return awake = true, SUCCESS; }
static int get_version(int *version) {
  const char *given = getenv("PLAYED_VERSION");
  return *version = given ? atoi(given) : 13000, SUCCESS;
}
static int get_device(int *device, int number) { return *device = number, awake ? SUCCESS : NOT_INITIALIZED; }
static int retain(void **context, int) { return *context = &primary, awake ? SUCCESS : NOT_INITIALIZED; }
static int set_current(void *context) { return current = context, SUCCESS; }
static int get_current(void **context) { return *context = (void *)current, SUCCESS; }
static int get_attribute(int *value, int attribute, int) {
  return *value = MOST_SHARED, attribute == SHARED_OF_A_BLOCK ? SUCCESS : INVALID_VALUE;
}
static int load(void **module, const void *image) {
  if (current != &primary) return INVALID_CONTEXT;
  *module = dlopen((const char *)image, RTLD_NOW);
  return *module ? SUCCESS : NOT_FOUND;
}
static int get_function(void **function, void *module, const char *name) {
  *function = strcmp(name, "run") ? nullptr : dlsym(module, "play");
  return *function ? SUCCESS : NOT_FOUND;
}
static int set_attribute(void *, int attribute, int value) {
  allowed = value;
  return attribute == SHARED_OF_A_FUNCTION && value <= MOST_SHARED ? SUCCESS : INVALID_VALUE;
}
static int occupancy(int *blocks, void *, int threads, size_t) {
  return *blocks = BLOCKS, threads > 0 && threads <= 1024 ? SUCCESS : INVALID_VALUE;
}
static int launch(void *function, unsigned blocks, unsigned blocks_y, unsigned blocks_z, unsigned threads,
                  unsigned threads_y, unsigned threads_z, unsigned shared, void *stream, void **given, void **extra) {
  if (current != &primary) return INVALID_CONTEXT;
  const bool flat = blocks_y == 1 && blocks_z == 1 && threads_y == 1 && threads_z == 1;
  if (!flat || stream != STREAM || extra || shared > (unsigned)allowed) return INVALID_VALUE;
  return ((Play *)function)(given[0], given[1], blocks, threads, shared) ? LAUNCH_FAILED : SUCCESS;
}

extern "C" int cuGetProcAddress_v2(const char *symbol, void **function, int, uint64_t, int *) {
  const struct {
    const char *name;
    void *function;
  } known[] = {
      {"cuInit", (void *)init},
      {"cuDriverGetVersion", (void *)get_version},
      {"cuDeviceGet", (void *)get_device},
      {"cuDevicePrimaryCtxRetain", (void *)retain},
      {"cuCtxSetCurrent", (void *)set_current},
      {"cuCtxGetCurrent", (void *)get_current},
      {"cuDeviceGetAttribute", (void *)get_attribute},
      {"cuModuleLoadData", (void *)load},
      {"cuModuleGetFunction", (void *)get_function},
      {"cuFuncSetAttribute", (void *)set_attribute},
      {"cuOccupancyMaxActiveBlocksPerMultiprocessor", (void *)occupancy},
      {"cuLaunchKernel", (void *)launch},
  };
  *function = nullptr;
  for (auto each : known)
    if (!strcmp(symbol, each.name)) *function = each.function;
  return *function ? SUCCESS : NOT_FOUND;
}
