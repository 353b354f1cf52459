// Vectors of numbers and of integers, with the operations that C++ has no operator for: by the processor's instruction
// where it has one, else a lane at a time. A vector of one lane is the number itself, which is all that a GPU has.
//
// Products and polynomials call fma explicitly, and the compiler contracts nothing (-ffp-contract=off), so that every
// machine has the same bits. Denormal numbers are kept, as IEEE 754 says.
#pragma once
#ifdef __CUDACC__  // NVRTC, which has no headers, and compiles everything for the device
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
#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__clang__) && defined(__x86_64__)
#include <immintrin.h>  // GCC's builtins below need no header; this one takes it 0.4 s to read
#endif

#ifdef __CUDACC__
#define INLINE __forceinline__
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#else
#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
#define NO_UNROLL
#endif
#define FN static INLINE
#define INLINED __attribute__((always_inline))  // of a lambda: not inlined, all arrays would leave registers
typedef REAL real;

constexpr int cdiv(int a, int b) { return (a + b - 1) / b; }
constexpr int min_of(int a, int b) { return a < b ? a : b; }
constexpr int max_of(int a, int b) { return a > b ? a : b; }

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

// A number that is known where it is passed to a function.
template <int n>
struct constant {
  static constexpr int value = n;
  constexpr operator int() const { return n; }
};

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
FN V splat(element<V> x) {
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

// Transpose a square of vectors: element j of r[i] changes places with element i of r[j]. Squares of 2, then of 4, ...
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

// ---- operations that C++ has no operator for; a lane at a time where the processor has no instruction ----

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

#ifdef __CUDACC__  // instructions can read a number without its sign; of its bits, arithmetic.h
FN float abs_(float x) { return fabsf(x); }
FN double abs_(double x) { return fabs(x); }
#endif

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

// About 1 / x and 1 / sqrt(x) of float32, and a / b by the steps that NVIDIA's compiler makes of it, which hold for
// numbers of usual size: its test whether they are comes apart.
#ifdef __CUDACC__
#define NEARLY(name, instruction, exact)                           \
  FN float name(float x) {                                         \
    float y;                                                       \
    asm(instruction ".approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); \
    return y;                                                      \
  }
#else
#define NEARLY(name, instruction, exact) \
  FN float name(float x) { return exact; }
#endif
NEARLY(near_reciprocal, "rcp", 1 / x)
NEARLY(near_reciprocal_root, "rsqrt", 1 / sqrt_(x))
FN float usual_quotient(float a, float b) {
  const float near = near_reciprocal(b), r = fma_(near, fma_(-b, near, 1.0f), near), q = a * r;
  return fma_(r, fma_(-b, q, a), q);
}
// a / b of numbers for which a GPU needs no test: 1 <= b < 2^60, and a is 0, or usual, or b is a power of two.
template <class V>
FN V quotient_(V a, V b) {
#if ON_GPU
  if constexpr (is<V, float, 1>) return usual_quotient(a, b);
#endif
  return a / b;
}

// The functions above and of arithmetic.h, by their number of arguments, for a v of several registers; sqrt_ is apart.
#define DEFINE_FUNCTIONS(ONE, TWO, THREE)                                                                     \
  ONE(exp_) ONE(expm1_) ONE(log_) ONE(log1p_) ONE(tanh_) ONE(erf_) ONE(sin_) ONE(cos_) ONE(floor_) ONE(abs_)  \
  ONE(sign_) ONE(flush_) TWO(min_) TWO(max_) TWO(at_least_) TWO(at_most_) TWO(gt_) TWO(lt_) TWO(ge_) TWO(le_) \
  TWO(eq_) TWO(ne_) THREE(fma_) THREE(lerp_) THREE(where_)
