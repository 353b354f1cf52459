// The functions of a number that networks need, for float, double and native vectors of them. Every lane is computed by
// the same operations in the same order, whatever the lanes and the instruction set: the same bits on AVX2, on AVX-512
// and in scalars. (Where one instruction does what several lines say, and has their bits, it is used.)
//
// Accuracy, in ulps of the correct result, denormals included; tests/test_arithmetic.py measures it:
//
//              float    double                 float    double
//     exp      1.91     0.90        tanh     2.54     2.70
//     expm1    1.64     1.85        erf      1.49     1.05
//     log      0.85     0.90        sin      1.58     1.65
//     log1p    1.40     1.45        cos      1.58     1.65
//
// float: the largest error of all numbers where the function is not simply x or a constant, rounded up; double: the
// largest of some millions of numbers, most of them where it was found large, and some hundredths more. NaN gives NaN
// (which one is not promised), except that sign(NaN) is 0 and of the comparisons with NaN only "not equal" is true, as
// in torch; of 0 and -0, min and max give either. Odd functions keep the sign of zero. The coefficients are our own:
// scripts/coefficients.py finds and prints them.
#pragma once
#include "simd.h"

// ---- numbers as bits ----

template <class T>
struct format;
template <>
struct format<float> {
  typedef uint32_t word;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr word sign = 0x80000000u, one = 0x3f800000u, root_half = 0x3f3504f3u;  // sign; 1; sqrt(1/2)
  static constexpr float magic = 0x1.8p23f;     // magic + n, |n| < 2^22, is rounded to whole n, held by its low bits
  static constexpr float smallest = 0x1p-126f;  // not denormal
  static constexpr float faint = 0x1p-100f;     // 2^26 times that: flush_
  static constexpr float tiny = 0x1p-30f;       // x^2 / 2 is nothing beside x
};
template <>
struct format<double> {
  typedef uint64_t word;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr word sign = 0x8000000000000000u, one = 0x3ff0000000000000u, root_half = 0x3fe6a09e667f3bcdu;
  static constexpr double magic = 0x1.8p52, smallest = 0x1p-1022, faint = 0x1p-996, tiny = 0x1p-60;
};

// Unsigned integers of the size and number of V: shifts of them exist on every machine.
template <class V>
using words = vec<typename format<element<V>>::word, lanes<V>::count>;

template <class V>
FN words<V> bits_(V x) {
  return reinterpret<words<V>>(x);
}

// c[0] + c[1] x + c[2] x^2 + ..., by Horner's rule: the fewest operations.
template <auto &c, int i = 0, class V>
FN V polynomial_(V x) {
  if constexpr (i + 1 == sizeof(c) / sizeof(c[0])) return splat<V>(c[i]);
  else return fma_<V>(polynomial_<c, i + 1>(x), x, splat<V>(c[i]));
}

// ---- comparisons, as 1 and 0 ----

// clang-format off
template <class V> FN V gt_(V a, V b) { return a > b ? splat<V>(1) : splat<V>(0); }
template <class V> FN V lt_(V a, V b) { return a < b ? splat<V>(1) : splat<V>(0); }
template <class V> FN V ge_(V a, V b) { return a >= b ? splat<V>(1) : splat<V>(0); }
template <class V> FN V le_(V a, V b) { return a <= b ? splat<V>(1) : splat<V>(0); }
template <class V> FN V eq_(V a, V b) { return a == b ? splat<V>(1) : splat<V>(0); }
template <class V> FN V ne_(V a, V b) { return a != b ? splat<V>(1) : splat<V>(0); }
template <class V> FN V where_(V condition, V a, V b) { return condition != splat<V>(0) ? a : b; }

// ---- sign, size, order ----

template <class V> FN V abs_(V x) { return reinterpret<V>(bits_(x) & ~format<element<V>>::sign); }
template <class V> FN V sign_(V x) { return gt_(x, splat<V>(0)) - lt_(x, splat<V>(0)); }
template <class V> FN V min_(V a, V b) { return (a < b) | (a != a) ? a : b; }
template <class V> FN V max_(V a, V b) { return (a > b) | (a != a) ? a : b; }
// A number so small that products of it would be denormal, on which a CPU takes a hundred cycles, is 0.
template <class V> FN V flush_(V x) { return abs_(x) <= splat<V>(format<element<V>>::faint) ? splat<V>(0) : x; }
template <class V> FN V lerp_(V a, V b, V w) { return fma_<V>(w, b, fma_<V>(-w, a, a)); }
// clang-format on

// low > x ? low : x and high < x ? high : x, which keep a NaN of x: one instruction each, which GCC must be told.
template <class V>
FN V at_least_(V x, V low) {
#if defined(__AVX512F__) && !defined(__clang__)
  if constexpr (sizeof(V) == 64 && sizeof(element<V>) == 4) return __builtin_ia32_maxps512_mask(low, x, x, -1, 4);
  else if constexpr (sizeof(V) == 64) return __builtin_ia32_maxpd512_mask(low, x, x, -1, 4);
#endif
#if defined(__AVX__) && !defined(__clang__)
  if constexpr (sizeof(V) == 32 && sizeof(element<V>) == 4) return __builtin_ia32_maxps256(low, x);
  else if constexpr (sizeof(V) == 32) return __builtin_ia32_maxpd256(low, x);
#endif
  return low > x ? low : x;
}
template <class V>
FN V at_most_(V x, V high) {
#if defined(__AVX512F__) && !defined(__clang__)
  if constexpr (sizeof(V) == 64 && sizeof(element<V>) == 4) return __builtin_ia32_minps512_mask(high, x, x, -1, 4);
  else if constexpr (sizeof(V) == 64) return __builtin_ia32_minpd512_mask(high, x, x, -1, 4);
#endif
#if defined(__AVX__) && !defined(__clang__)
  if constexpr (sizeof(V) == 32 && sizeof(element<V>) == 4) return __builtin_ia32_minps256(high, x);
  else if constexpr (sizeof(V) == 32) return __builtin_ia32_minpd256(high, x);
#endif
  return high < x ? high : x;
}

// The size of x with the sign of y, for x that has none.
template <class V>
FN V with_sign_(V x, V y) {
  return reinterpret<V>(bits_(x) | (bits_(y) & format<element<V>>::sign));
}

// The nearest whole number by adding 2^mantissa to |x|, less one where that is above x. Larger numbers are whole.
template <class V>
FN V floor_(V x) {
  const V whole = splat<V>(element<V>(typename format<element<V>>::word(1) << format<element<V>>::mantissa));
  const V a = abs_(x);
  const V y = with_sign_((a + whole) - whole, x);
  return a < whole ? (y > x ? y - splat<V>(1) : y) : x;
}

// ---- exp, expm1: x = n ln 2 + r, |r| <= ln 2 / 2 ----

template <class T>
struct ln2;
template <>
struct ln2<float> {
  static constexpr float inverse = 1.442695f, high = 0.6931472f, low = -1.9046542e-09f;
};
template <>
struct ln2<double> {
  static constexpr double inverse = 1.4426950408889634, high = 0.6931471805599453, low = 2.3190468138462996e-17;
};

// x - n high, exactly: r but for n low. The low bits of sum become n + offset.
template <class V>
FN V without_ln2_(V x, int offset, V &sum, V &n) {
  typedef element<V> T;
  const V magic = splat<V>(format<T>::magic + T(offset));
  sum = fma_<V>(x, splat<V>(ln2<T>::inverse), magic);
  n = sum - magic;
  return fma_<V>(n, splat<V>(-ln2<T>::high), x);
}

// p 2^n, rounded once, for 1/2 <= p < 2: in two steps, as 2^n alone may be too large or too small a number.
// The low bits of sum are n + 2 bias.
template <class V>
FN V scaled_(V p, V sum, [[maybe_unused]] V n) {
  constexpr int mantissa = format<element<V>>::mantissa;
#if defined(__AVX512VL__) && !defined(__clang__)
  if constexpr (sizeof(V) == 64 && mantissa == 23) return __builtin_ia32_scalefps512_mask(p, n, p, -1, 4);
  else if constexpr (sizeof(V) == 64) return __builtin_ia32_scalefpd512_mask(p, n, p, -1, 4);
  else if constexpr (sizeof(V) == 32 && mantissa == 23) return __builtin_ia32_scalefps256_mask(p, n, p, -1);
  else if constexpr (sizeof(V) == 32) return __builtin_ia32_scalefpd256_mask(p, n, p, -1);
#endif
  const words<V> i = bits_(sum), half = i >> 1;
  return p * reinterpret<V>(half << mantissa) * reinterpret<V>((i - half) << mantissa);
}

template <class T>
struct exp_of;
template <>
struct exp_of<float> {
  static constexpr float low = -104, high = 89;  // beyond these exp is 0 and infinity
  static constexpr float p[] = {1, 0.99999946f, 0.49999145f, 0.16668178f, 0.04189852f, 0.00826212f};
};
template <>
struct exp_of<double> {
  static constexpr double low = -746, high = 710;
  static constexpr double p[] = {1, 1, 0.5000000000000008, 0.16666666666666302, 0.041666666666548884,
                                 0.008333333333557959, 0.0013888888939533523, 0.00019841269380734466,
                                 2.4801496771669385e-05, 2.755769068086262e-06, 2.7629085483321135e-07,
                                 2.4969096700285043e-08};
};

// exp for low <= x <= high: 2^n times a polynomial of r (Cody & Waite 1980).
template <class V>
FN V exp_within_(V x) {
  typedef element<V> T;
  V sum, n;
  const V high = without_ln2_(x, 2 * format<T>::bias, sum, n);
  const V r = fma_<V>(n, splat<V>(-ln2<T>::low), high);
  return scaled_(polynomial_<exp_of<T>::p>(r), sum, n);
}

template <class V>
FN V exp_(V x) {
  typedef exp_of<element<V>> of;
  return exp_within_(at_most_(at_least_(x, splat<V>(of::low)), splat<V>(of::high)));
}

template <class T>
struct expm1_of;
template <>
struct expm1_of<float> {
  static constexpr float low = -18;  // below, expm1 is -1
  static constexpr float q[] = {0.49999997f, 0.16666546f, 0.041667443f, 0.008366258f, 0.0013869782f};
};
template <>
struct expm1_of<double> {
  static constexpr double low = -38;
  static constexpr double q[] = {0.5000000000000006, 0.1666666666666665, 0.041666666666576306, 0.008333333333360478,
                                 0.0013888888931375158, 0.00019841269769282205, 2.4801505630381604e-05,
                                 2.755737044798266e-06, 2.76258798563886e-07, 2.506371122770647e-08};
};

// 2 (h expm1(r) + (h - 1/2)) with h = 2^n / 2, which is always a number, and expm1(r) = r + r^2 q(r), where r is taken
// in two parts: rounded, it would cost half an ulp more.
template <class V>
FN V expm1_(V x) {
  typedef element<V> T;
  const V within = at_most_(at_least_(x, splat<V>(expm1_of<T>::low)), splat<V>(exp_of<T>::high));
  V sum, n;
  const V high = without_ln2_(within, format<T>::bias - 1, sum, n), low = n * splat<V>(-ln2<T>::low), r = high + low;
  const V y = high + fma_<V>(r * r, polynomial_<expm1_of<T>::q>(r), low);
  const V h = reinterpret<V>(bits_(sum) << format<T>::mantissa), half = fma_<V>(h, y, h - splat<V>(T(0.5)));
  return abs_(x) < splat<V>(format<T>::tiny) ? x : half + half;
}

// ---- tanh ----

template <class T>
struct tanh_of;
template <>
struct tanh_of<float> {
  static constexpr float limit = 10;  // beyond, tanh is 1
  static constexpr float p[] = {-0.33331272f, 0.13110621f};
};
template <>
struct tanh_of<double> {
  static constexpr double limit = 20;
  static constexpr double p[] = {-0.3333333333333249, 0.13333333332784716, -0.05396825278326285,
                                 0.02186937078858986, -0.008857310817419252, 0.003444859328980029};
};

// With |x| = n ln 2 / 2 + t, |t| <= ln 2 / 4, and u = tanh(t) = t + t^3 P(t^2): exp(2 |x|) = 2^n (1 + u) / (1 - u), so
// tanh|x| = (2^n - 1 + u (2^n + 1)) / (2^n + 1 + u (2^n - 1)), small ones over 2. Never above 1.
template <class V>
FN V tanh_(V x) {
  typedef element<V> T;
  const V a = at_most_(abs_(x), splat<V>(tanh_of<T>::limit)), magic = splat<V>(format<T>::magic + format<T>::bias);
  const V sum = fma_<V>(a, splat<V>(2 * ln2<T>::inverse), magic), n = sum - magic, one = splat<V>(1);
  const V t = fma_<V>(n, splat<V>(ln2<T>::high / -2), a), z = t * t;  // no low part of ln 2 is needed
  const V u = fma_<V>(t * z, polynomial_<tanh_of<T>::p>(z), t);
  const V power = reinterpret<V>(bits_(sum) << format<T>::mantissa), less = power - one, more = power + one;
  return with_sign_(quotient_<V>(fma_<V>(u, more, less), fma_<V>(u, less, more)), x);
}

// ---- log, log1p ----

template <class T>
struct log_of;
template <>
struct log_of<float> {
  static constexpr float r[] = {0.66666776f, 0.39977586f, 0.29870695f};
};
template <>
struct log_of<double> {
  static constexpr double r[] = {0.6666666666666734, 0.3999999999941694, 0.285714287419319, 0.2222219861632288,
                                 0.18183562237318354, 0.15314100647413964, 0.14795477945266847};
};

// log(2^k (1 + f)) for sqrt(1/2) <= 1 + f < sqrt(2), by fdlibm's scheme: with s = f / (2 + f),
// log(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + R(s^2))), and with k ln 2 in two parts.
template <class V>
FN V log_sum_(V k, V f) {
  typedef element<V> T;
  const V half_square = splat<V>(T(0.5)) * f * f, s = f / (splat<V>(2) + f), z = s * s;
  const V rest = fma_<V>(s, half_square + z * polynomial_<log_of<T>::r>(z), k * splat<V>(ln2<T>::low));
  return fma_<V>(k, splat<V>(ln2<T>::high), f - (half_square - rest));
}

// The number 1 + f, and the bits of 1 whose exponent field is k + bias, of a normal x = 2^k (1 + f) > 0.
template <class V>
FN V mantissa_(V x, words<V> &exponent) {
  typedef format<element<V>> in;
  const words<V> i = bits_(x) + (in::one - in::root_half);
  exponent = i >> in::mantissa;
  return reinterpret<V>((i & ((typename in::word(1) << in::mantissa) - 1)) + in::root_half);
}

template <class V>
FN V number_(words<V> i) {  // of a whole number below 2^22
  const V magic = splat<V>(format<element<V>>::magic);
  return reinterpret<V>(bits_(magic) + i) - magic;
}

// What log is where y = log(x) does not hold: at 0, below, at infinity, of NaN.
template <class V>
FN V log_domain_(V x, V y) {
  typedef element<V> T;
  const V infinity = splat<V>(T(__builtin_inf())), out = x == splat<V>(0) ? -infinity : splat<V>(T(__builtin_nan("")));
  return x < infinity ? (x > splat<V>(0) ? y : out) : x;
}

template <class V>
FN V log_(V x) {
  typedef format<element<V>> in;
  const auto denormal = x < splat<V>(in::smallest);
  constexpr typename in::word up = in::mantissa + 2;
  words<V> exponent;
  const V m = mantissa_(denormal ? x * splat<V>(element<V>(typename in::word(1) << up)) : x, exponent);
  const V offset = denormal ? splat<V>(in::bias + up) : splat<V>(in::bias);
  return log_domain_(x, log_sum_(number_<V>(exponent) - offset, m - splat<V>(1)));
}

// With u = 1 + x rounded and c what the rounding took: 1 + x = 2^k (m + c / 2^k), where m - 1 is exact.
template <class V>
FN V log1p_(V x) {
  typedef format<element<V>> in;
  const V one = splat<V>(1), u = one + x, part = u - one, c = (one - (u - part)) + (x - part);
  words<V> exponent;
  const V m = mantissa_(u, exponent), k = number_<V>(exponent) - splat<V>(in::bias);
  const words<V> least = exponent < in::bias + 99 ? exponent : exponent - exponent + (in::bias + 99);
  const V down = reinterpret<V>((2 * in::bias - least) << in::mantissa);  // 1 / 2^k, but where c / 2^k is nothing
  const V y = log_sum_(k, fma_<V>(c, down, m - one));
  return abs_(x) < splat<V>(in::tiny) ? x : (x < splat<V>(element<V>(__builtin_inf())) ? log_domain_(u, y) : x);
}

#include "special.h"
