// What a lane is on each machine. network.h is written in lanes alone and runs on all of them:
//
//   lanes are networks   v holds one number of each of several networks side by side (narrow layers, small batches)
//   lanes are outputs    v holds neighbouring numbers of one network (WIDE: wide layers)
//   a thread, a network  v is one number (VECTOR = 1)
//   a team, a network    threads share the items of every phase (TEAM): CPU threads, a GPU's block, or a part of a warp
//
// A phase is EACH over independent items and ends at a BARRIER. On every machine an item computes its numbers by the
// same operations in the same order, so they have the same bits. For that, products and polynomials say fma themselves
// and the compiler contracts nothing (-ffp-contract=off). Denormal numbers are kept, as IEEE 754 says.
//
// Compile-time constants: TASK, to train, or to predict or evaluate (show.h); REAL, float or double; VECTOR, the
// numbers in a vector register; PARTS, the registers that make a v: with three, the steps of three groups of tiny
// networks overlap and hide each other's latency; WIDE; TEAM; THREADS of a network's block on a GPU, 0 on a CPU;
// TOGETHER, the networks that share such a block.
#pragma once
#define TRAIN 0  // what TASK may be
#define PREDICT 1
#define EVALUATE 2
#ifdef __CUDACC__  // NVRTC, which has no headers; and is told to compile everything for the device
typedef signed char int8_t;
typedef int int32_t;
typedef unsigned uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define __builtin_inf() __longlong_as_double(0x7ff0000000000000)
#define __builtin_nan(text) __longlong_as_double(0x7ff8000000000000)
#else
#include <cstdint>
#include <cstring>
#endif
#if TEAM && !THREADS
#include <sched.h>
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__clang__) && defined(__x86_64__)
#include <immintrin.h>  // GCC's builtins below need no header; this one takes it 0.4 s to read
#endif

#ifdef __CUDACC__
#define FN static __forceinline__
#define UNROLL _Pragma("unroll")
#else
#define FN static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
#endif
typedef REAL real;
#if PARTS != 1 && !defined(__clang__)
#pragma GCC optimize("no-tree-ter")  // operations of the three stay as they are written: 1.06 to 1.09 of the rate
#endif

// ---- vectors: vec<T, n> is T itself for n = 1 ----

template <class T, int n>
struct vector_of {
#ifndef __CUDACC__
  typedef T type __attribute__((vector_size(sizeof(T) * n), aligned(sizeof(T) * n)));
  typedef T loose __attribute__((vector_size(sizeof(T) * n), aligned(alignof(T)), may_alias));  // at any address
#endif
};
template <class T>
struct vector_of<T, 1> {
  typedef T type;
  typedef T loose;
};
template <class T, int n>
using vec = typename vector_of<T, n>::type;

// Of a vector or number V: its element, how many there are, and the integers of the same size and number.
template <int bytes>
struct integer;
template <>
struct integer<4> {
  typedef int32_t type;
};
template <>
struct integer<8> {
  typedef int64_t type;
};
template <class V, class = void>
struct lanes {
  typedef V element;
  static constexpr int count = 1;
  typedef typename integer<sizeof(V)>::type bits;
};
template <class V>
struct lanes<V, decltype((void)V{}[0])> {
  typedef decltype(V{}[0] + V{}[0]) element;
  static constexpr int count = sizeof(V) / sizeof(element);
  typedef vec<typename integer<sizeof(element)>::type, count> bits;
};
template <class V>
using element = typename lanes<V>::element;
template <class V>
using bits = typename lanes<V>::bits;

template <class V, class T, int n>
constexpr bool is = sizeof(element<V>) == sizeof(T) && lanes<V>::count == n;

// The same number in every lane. (Taking off 0 changes no number, not even -0, so the compiler leaves it out.)
template <class V>
FN V all(element<V> x) {
  return x - V{};
}

// The same bits as another type.
template <class To, class From>
FN To reinterpret(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}

template <class V>
FN V load(const element<V> *p) {
  return reinterpret<V>(*(const typename vector_of<element<V>, lanes<V>::count>::loose *)p);
}
template <class V>
FN void store(element<V> *p, V x) {
  *(typename vector_of<element<V>, lanes<V>::count>::loose *)p = x;
}

// The first n elements only; 0 in the others.
template <class V, int n>
FN V load_part(const element<V> *p) {
  if constexpr (n == lanes<V>::count) return load<V>(p);
#if defined(__AVX512F__) && !defined(__clang__)
  else if constexpr (is<V, float, 16>) return __builtin_ia32_loadups512_mask(p, V{}, (1 << n) - 1);
  else if constexpr (sizeof(V) == 64) return __builtin_ia32_loadupd512_mask(p, V{}, (1 << n) - 1);
#endif
  else {
    V x{};
    for (int i = 0; i < n; i++) x[i] = p[i];
    return x;
  }
}
template <class V, int n>
FN void store_part(element<V> *p, V x) {
  if constexpr (n == lanes<V>::count) store<V>(p, x);
#if defined(__AVX512F__) && !defined(__clang__)
  else if constexpr (is<V, float, 16>) __builtin_ia32_storeups512_mask(p, x, (1 << n) - 1);
  else if constexpr (sizeof(V) == 64) __builtin_ia32_storeupd512_mask(p, x, (1 << n) - 1);
#endif
  else
    for (int i = 0; i < n; i++) p[i] = x[i];
}

// The nearest numbers of another type.
template <class To, class From>
FN To convert_(From x) {
  if constexpr (lanes<To>::count == 1) return (To)x;
#ifndef __CUDACC__
  else return __builtin_convertvector(x, To);
#endif
}

// Turn a square of vectors: element j of r[i] changes places with element i of r[j]. Squares of 2, then of 4, ...
template <class V, int d = 1>
FN void transpose(V *r) {
  constexpr int n = lanes<V>::count;
  if constexpr (d < n) {
    bits<V> low, high;
    UNROLL for (int j = 0; j < n; j++) {
      low[j] = j & d ? n + j - d : j;
      high[j] = j & d ? n + j : j + d;
    }
    UNROLL for (int i = 0; i < n; i++) {
      if (i & d) continue;
      V x = r[i], y = r[i + d];
#ifdef __clang__
      for (int j = 0; j < n; j++) r[i][j] = j & d ? y[j - d] : x[j], r[i + d][j] = j & d ? y[j] : x[j + d];
#else
      r[i] = __builtin_shuffle(x, y, low);
      r[i + d] = __builtin_shuffle(x, y, high);
#endif
    }
    transpose<V, 2 * d>(r);
  }
}

// ---- the operations that C++ has no sign for; a lane at a time where the processor has no instruction ----

template <class V>
FN V fma_(V a, V b, V c) {
  constexpr int n = lanes<V>::count;
#ifdef __CUDACC__
  if constexpr (sizeof(V) == 4) return __fmaf_rn(a, b, c);
  else if constexpr (sizeof(V) == 8) return __fma_rn(a, b, c);
#else
  if constexpr (n == 1) return sizeof(V) == 4 ? (V)__builtin_fmaf(a, b, c) : (V)__builtin_fma(a, b, c);
#endif
#if defined(__clang__) && defined(__AVX512F__)
  else if constexpr (is<V, float, 16>) return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  else if constexpr (sizeof(V) == 64) return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX512F__)
  else if constexpr (is<V, float, 16>) return __builtin_ia32_vfmaddps512_mask(a, b, c, -1, 4);
  else if constexpr (sizeof(V) == 64) return __builtin_ia32_vfmaddpd512_mask(a, b, c, -1, 4);
#endif
#if defined(__clang__) && defined(__FMA__)
  else if constexpr (is<V, float, 8>) return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  else if constexpr (sizeof(V) == 32) return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__FMA__)
  else if constexpr (is<V, float, 8>) return __builtin_ia32_vfmaddps256(a, b, c);
  else if constexpr (sizeof(V) == 32) return __builtin_ia32_vfmaddpd256(a, b, c);
#elif defined(__aarch64__)
  else if constexpr (is<V, float, 4>)
    return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
  else if constexpr (sizeof(V) == 16) return (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#endif
  else {
    V r{};
    for (int i = 0; i < n; i++) r[i] = fma_<element<V>>(a[i], b[i], c[i]);
    return r;
  }
}

// x in a register from here on. GCC would rather read it from memory again at every use: twice the loads of a product.
template <class V>
FN V hold(V x) {
#if defined(__AVX512F__)
  if constexpr (lanes<V>::count > 1 && sizeof(V) <= 64) asm("" : "+v"(x));
#elif defined(__AVX__)
  if constexpr (lanes<V>::count > 1 && sizeof(V) <= 32) asm("" : "+x"(x));
#elif defined(__aarch64__)
  if constexpr (lanes<V>::count > 1 && sizeof(V) <= 16) asm("" : "+w"(x));
#endif
  return x;
}

template <class V>
FN V sqrt_(V a) {
  constexpr int n = lanes<V>::count;
#ifdef __CUDACC__
  if constexpr (sizeof(V) == 4) return __fsqrt_rn(a);
  else if constexpr (sizeof(V) == 8) return __dsqrt_rn(a);
#else
  if constexpr (n == 1) return sizeof(V) == 4 ? (V)__builtin_sqrtf(a) : (V)__builtin_sqrt(a);
#endif
#if defined(__clang__) && defined(__AVX512F__)
  else if constexpr (is<V, float, 16>) return (V)_mm512_sqrt_ps((__m512)a);
  else if constexpr (sizeof(V) == 64) return (V)_mm512_sqrt_pd((__m512d)a);
#elif defined(__AVX512F__)
  else if constexpr (is<V, float, 16>) return __builtin_ia32_sqrtps512_mask(a, a, -1, 4);
  else if constexpr (sizeof(V) == 64) return __builtin_ia32_sqrtpd512_mask(a, a, -1, 4);
#endif
#if defined(__clang__) && defined(__AVX2__)
  else if constexpr (is<V, float, 8>) return (V)_mm256_sqrt_ps((__m256)a);
  else if constexpr (sizeof(V) == 32) return (V)_mm256_sqrt_pd((__m256d)a);
#elif defined(__AVX2__)
  else if constexpr (is<V, float, 8>) return __builtin_ia32_sqrtps256(a);
  else if constexpr (sizeof(V) == 32) return __builtin_ia32_sqrtpd256(a);
#elif defined(__aarch64__)
  else if constexpr (is<V, float, 4>) return (V)vsqrtq_f32((float32x4_t)a);
  else if constexpr (sizeof(V) == 16) return (V)vsqrtq_f64((float64x2_t)a);
#endif
  else {
    V r{};
    for (int i = 0; i < n; i++) r[i] = sqrt_<element<V>>(a[i]);
    return r;
  }
}

// Whether any lane of integers is not 0.
template <class W>
FN bool any(W x) {
  constexpr int n = lanes<W>::count;
  if constexpr (n == 1) return x != 0;
#if defined(__AVX512F__) && !defined(__clang__)
  else if constexpr (sizeof(W) == 64) return __builtin_ia32_ptestmd512((vec<int32_t, 16>)x, (vec<int32_t, 16>)x, -1);
#endif
#if defined(__AVX2__) && !defined(__clang__)
  else if constexpr (sizeof(W) == 32) {
    return !__builtin_ia32_ptestz256((vec<long long, 4>)x, (vec<long long, 4>)x);
  }
#endif
  else {
    element<W> together = 0;
    for (int i = 0; i < n; i++) together |= x[i];
    return together != 0;
  }
}

// ---- v, the number that network.h computes with ----

typedef vec<real, VECTOR> native;

#if PARTS == 1
typedef native v;
#define ON_PARTS(name, ...)
#else
struct v {
  native a, b, c;
  v() = default;
  __attribute__((always_inline)) v(real x) : a(all<native>(x)), b(a), c(a) {}
  __attribute__((always_inline)) v(native a, native b, native c) : a(a), b(b), c(c) {}
};
template <>
struct lanes<v> {
  typedef real element;
  static constexpr int count = 3 * VECTOR;
};
FN v operator+(v x, v y) { return v(x.a + y.a, x.b + y.b, x.c + y.c); }
FN v operator-(v x, v y) { return v(x.a - y.a, x.b - y.b, x.c - y.c); }
FN v operator*(v x, v y) { return v(x.a * y.a, x.b * y.b, x.c * y.c); }
FN v operator/(v x, v y) { return v(x.a / y.a, x.b / y.b, x.c / y.c); }
FN v operator-(v x) { return v(-x.a, -x.b, -x.c); }
template <>
inline __attribute__((always_inline)) v hold<v>(v x) {
  return x;  // for three there are too few registers: held, 2-2-2 lost 17 %
}
template <>
inline __attribute__((always_inline)) v all<v>(real x) { return v(x); }
template <>
inline __attribute__((always_inline)) v load<v>(const real *p) {
  return v(load<native>(p), load<native>(p + VECTOR), load<native>(p + 2 * VECTOR));
}
template <>
inline __attribute__((always_inline)) void store<v>(real *p, v x) {
  store<native>(p, x.a);
  store<native>(p + VECTOR, x.b);
  store<native>(p + 2 * VECTOR, x.c);
}
#endif

// ---- phases ----

#if THREADS
#if TEAM
// Networks that share a block are parts of one warp, none of which waits for the others. That the number of a thread of
// one network is below THREADS, the compiler has to be told: it then sees which loops end after one round.
#if TOGETHER == 1
FN int member() {
  __builtin_assume(threadIdx.x < THREADS);
  return threadIdx.x;
}
#define MEMBER member()
#define BARRIER __syncthreads();
#else
#define MEMBER (threadIdx.x % THREADS)
#define BARRIER __syncwarp(((1u << THREADS) - 1) << (threadIdx.x - MEMBER));
#endif
#define EACH(t, n) for (int t = MEMBER; t < (n); t += THREADS)
#else
#define EACH(t, n) UNROLL for (int t = 0; t < (n); ++t)
#define BARRIER
#endif
#elif TEAM
// A barrier of `size` threads: the last to come opens it. All spin; a thread that waits long lets others run. What is
// written while others spin, or read at every phase, has cache lines of its own.
struct Team {
  alignas(64) int size;
  alignas(64) int waiting;
  alignas(64) int round;
};
static thread_local Team *team;
static thread_local int member, members;
static void barrier() {
  int round = __atomic_load_n(&team->round, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&team->waiting, 1, __ATOMIC_ACQ_REL) == members) {
    __atomic_store_n(&team->waiting, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&team->round, round + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int spins = 0; __atomic_load_n(&team->round, __ATOMIC_ACQUIRE) == round; spins++)
    if (spins > 2000) sched_yield();
}
#define EACH(t, n) for (int t = member; t < (n); t += members)
#ifndef BARRIER
#define BARRIER barrier();
#endif
#else
#define EACH(t, n) for (int t = 0; t < (n); ++t)
#define BARRIER
#endif

// How many networks of a call had a number that was not finite; a GPU's blocks see to theirs themselves.
FN void count_one([[maybe_unused]] int64_t *count) {
#if !THREADS
  __atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
#endif
}

// ---- tiles of a product: what one costs, and which rows or columns it has ----
//
// Macros, so that what a CPU's compiler sees is plain arithmetic: with functions in their place it inlined otherwise.

constexpr int cdiv(int a, int b) { return (a + b - 1) / b; }
constexpr int least(int a, int b) { return a < b ? a : b; }
constexpr int most(int a, int b) { return a > b ? a : b; }

#if THREADS && TEAM
// In quarters of a cycle, for each k: what a thread issues, tile after tile, and what the block takes of its
// multiprocessor, which does four warps' multiply-adds, or one warp's load from shared memory, in a cycle.
constexpr long tile_cost(long tiles, int rows, int cols) {
  const long alone = rows * cols + rows + cols, together = most(rows * cols, 4 * (rows + cols));
  return 4 * ((tiles + THREADS - 1) / THREADS) * alone + (tiles + 31) / 32 * together;
}
// An item has places that lie as far apart as there are items: neighbouring threads have neighbours, which lie in
// different banks of shared memory. Beyond the last it reads the last, and stores nothing.
#define BEGIN(item, each) (item)
#define FIRST(begin, each, size) (begin)
#define OWNS(first, begin, i, each, size) ((size) % (each) == 0 || (first) + (i) * cdiv(size, each) < (size))
#define PLACE(first, i, each, size) \
  ((size) % (each) == 0 ? (first) + (i) * cdiv(size, each) : least((first) + (i) * cdiv(size, each), (size) - 1))
#else
// In halves of a cycle of a processor that does two multiply-adds and two loads per cycle, each multiply-add with a
// latency of four.
constexpr long tile_cost(long tiles, int rows, int cols) { return tiles * most(8, most(rows * cols, rows + cols)); }
// An item has neighbours; a last one that would stick out is moved back, and stores only what no other stores.
#define BEGIN(item, each) ((item) * (each))
#define FIRST(begin, each, size) least(begin, (size) - (each))
#define OWNS(first, begin, i, each, size) ((size) % (each) == 0 || (first) + (i) >= (begin))
#define PLACE(first, i, each, size) ((first) + (i))
#endif
