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
#include "machine.h"

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
  static constexpr float tiny = 0x1p-30f;       // x^2 / 2 is nothing beside x
};
template <>
struct format<double> {
  typedef uint64_t word;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr word sign = 0x8000000000000000u, one = 0x3ff0000000000000u, root_half = 0x3fe6a09e667f3bcdu;
  static constexpr double magic = 0x1.8p52, smallest = 0x1p-1022, tiny = 0x1p-60;
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
  if constexpr (i + 1 == sizeof(c) / sizeof(c[0])) return all<V>(c[i]);
  else return fma_<V>(polynomial_<c, i + 1>(x), x, all<V>(c[i]));
}

// ---- comparisons, as 1 and 0 ----

// clang-format off
template <class V> FN V gt_(V a, V b) { return a > b ? all<V>(1) : all<V>(0); }
template <class V> FN V lt_(V a, V b) { return a < b ? all<V>(1) : all<V>(0); }
template <class V> FN V ge_(V a, V b) { return a >= b ? all<V>(1) : all<V>(0); }
template <class V> FN V le_(V a, V b) { return a <= b ? all<V>(1) : all<V>(0); }
template <class V> FN V eq_(V a, V b) { return a == b ? all<V>(1) : all<V>(0); }
template <class V> FN V ne_(V a, V b) { return a != b ? all<V>(1) : all<V>(0); }
template <class V> FN V where_(V condition, V a, V b) { return condition != all<V>(0) ? a : b; }

// ---- sign, size, order ----

template <class V> FN V abs_(V x) { return reinterpret<V>(bits_(x) & ~format<element<V>>::sign); }
template <class V> FN V sign_(V x) { return gt_(x, all<V>(0)) - lt_(x, all<V>(0)); }
template <class V> FN V min_(V a, V b) { return (a < b) | (a != a) ? a : b; }
template <class V> FN V max_(V a, V b) { return (a > b) | (a != a) ? a : b; }
template <class V> FN V lerp_(V a, V b, V w) { return fma_<V>(w, b, fma_<V>(-w, a, a)); }
// clang-format on

// low > x ? low : x and high < x ? high : x, which keep a NaN of x: an instruction each, if told to GCC.
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
  const V whole = all<V>(element<V>(typename format<element<V>>::word(1) << format<element<V>>::mantissa)), a = abs_(x);
  const V y = with_sign_((a + whole) - whole, x);
  return a < whole ? (y > x ? y - all<V>(1) : y) : x;
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
  const V magic = all<V>(format<T>::magic + T(offset));
  sum = fma_<V>(x, all<V>(ln2<T>::inverse), magic);
  n = sum - magic;
  return fma_<V>(n, all<V>(-ln2<T>::high), x);
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
  const V r = fma_<V>(n, all<V>(-ln2<T>::low), high);
  return scaled_(polynomial_<exp_of<T>::p>(r), sum, n);
}

template <class V>
FN V exp_(V x) {
  typedef exp_of<element<V>> of;
  return exp_within_(at_most_(at_least_(x, all<V>(of::low)), all<V>(of::high)));
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
  const V within = at_most_(at_least_(x, all<V>(expm1_of<T>::low)), all<V>(exp_of<T>::high));
  V sum, n;
  const V high = without_ln2_(within, format<T>::bias - 1, sum, n), low = n * all<V>(-ln2<T>::low), r = high + low;
  const V y = high + fma_<V>(r * r, polynomial_<expm1_of<T>::q>(r), low);
  const V h = reinterpret<V>(bits_(sum) << format<T>::mantissa), half = fma_<V>(h, y, h - all<V>(T(0.5)));
  return abs_(x) < all<V>(format<T>::tiny) ? x : half + half;
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
// tanh|x| = (2^n - 1 + u (2^n + 1)) / (2^n + 1 + u (2^n - 1)). Never above 1. ln 2 needs no low part here.
template <class V>
FN V tanh_(V x) {
  typedef element<V> T;
  const V a = at_most_(abs_(x), all<V>(tanh_of<T>::limit)), magic = all<V>(format<T>::magic + format<T>::bias);
  const V sum = fma_<V>(a, all<V>(2 * ln2<T>::inverse), magic), n = sum - magic, one = all<V>(1);
  const V t = fma_<V>(n, all<V>(ln2<T>::high / -2), a), z = t * t;
  const V u = fma_<V>(t * z, polynomial_<tanh_of<T>::p>(z), t);
  const V power = reinterpret<V>(bits_(sum) << format<T>::mantissa), less = power - one, more = power + one;
  return with_sign_(fma_<V>(u, more, less) / fma_<V>(u, less, more), x);
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
  const V half_square = all<V>(T(0.5)) * f * f, s = f / (all<V>(2) + f), z = s * s;
  const V rest = fma_<V>(s, half_square + z * polynomial_<log_of<T>::r>(z), k * all<V>(ln2<T>::low));
  return fma_<V>(k, all<V>(ln2<T>::high), f - (half_square - rest));
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
  const V magic = all<V>(format<element<V>>::magic);
  return reinterpret<V>(bits_(magic) + i) - magic;
}

// What log is where y = log(x) does not hold: at 0, below, at infinity, of NaN.
template <class V>
FN V log_domain_(V x, V y) {
  typedef element<V> T;
  const V infinity = all<V>(T(__builtin_inf())), out = x == all<V>(0) ? -infinity : all<V>(T(__builtin_nan("")));
  return x < infinity ? (x > all<V>(0) ? y : out) : x;
}

template <class V>
FN V log_(V x) {
  typedef format<element<V>> in;
  const auto denormal = x < all<V>(in::smallest);
  constexpr typename in::word up = in::mantissa + 2;
  words<V> exponent;
  const V m = mantissa_(denormal ? x * all<V>(element<V>(typename in::word(1) << up)) : x, exponent);
  const V offset = denormal ? all<V>(in::bias + up) : all<V>(in::bias);
  return log_domain_(x, log_sum_(number_<V>(exponent) - offset, m - all<V>(1)));
}

// With u = 1 + x rounded and c what the rounding took: 1 + x = 2^k (m + c / 2^k), where m - 1 is exact.
template <class V>
FN V log1p_(V x) {
  typedef format<element<V>> in;
  const V one = all<V>(1), u = one + x, part = u - one, c = (one - (u - part)) + (x - part);
  words<V> exponent;
  const V m = mantissa_(u, exponent), k = number_<V>(exponent) - all<V>(in::bias);
  const words<V> least = exponent < in::bias + 99 ? exponent : exponent - exponent + (in::bias + 99);
  const V down = reinterpret<V>((2 * in::bias - least) << in::mantissa);  // 1 / 2^k, but where c / 2^k is nothing
  const V y = log_sum_(k, fma_<V>(c, down, m - one));
  return abs_(x) < all<V>(in::tiny) ? x : (x < all<V>(element<V>(__builtin_inf())) ? log_domain_(u, y) : x);
}

// ---- erf ----

template <class T>
struct erf_of;
template <>
struct erf_of<float> {
  static constexpr float limit = 4;  // beyond, erf is 1
  static constexpr float p[] = {0.12837912f, -0.3761232f, 0.112801135f, -0.026709218f, 0.0049149143f, -0.00056199497f};
  static constexpr float g[] = {-0.0026192076f, -1.1176212f, -0.65424013f, -0.08879969f, 0.014831838f, -0.0011572198f};
};
template <>
struct erf_of<double> {
  static constexpr double limit = 6;
  static constexpr double p[] = {0.12837916709551256, -0.37612638903183343, 0.11283791670936949, -0.02686617064195855,
                                 0.005223977596726496, -0.0008548325484237606, 0.00012055280461363865,
                                 -1.4924464664035398e-05, 1.6444134175873773e-06, -1.6183828165858126e-07,
                                 1.361581933906152e-08, -7.605828163215043e-10};
  static constexpr double g[] = {-5.028530286146948e-07, -1.128374089450676, -0.636643628179072, -0.10270343931865965,
                                 0.018990178539913763, 0.000410628323256049, -0.0019159438763298965,
                                 0.0007706438262544377, -0.0001350509320957591, -2.0266275392225445e-05,
                                 2.2822306939174445e-05, -8.667089604492368e-06, 2.1356559193922927e-06,
                                 -3.7329820439787354e-07, 4.642215072072492e-08, -3.934181592847039e-09,
                                 2.0449130095925011e-10, -4.928479127807353e-12};
};

// x + x P(x^2) for |x| < 1; beyond, 1 - exp(G(|x|)), where G is minimax for the logarithm of 1 - erf.
template <class V>
FN V erf_(V x) {
  typedef erf_of<element<V>> of;
  const V a = at_most_(abs_(x), all<V>(of::limit)), one = all<V>(1);
  const V near = fma_<V>(x, polynomial_<of::p>(a * a), x), far = one - exp_within_(polynomial_<of::g>(a));
  return a < one ? near : with_sign_(far, x);
}

// ---- sin, cos: |x| = n pi / 2 + r, |r| <= pi / 4 ----

template <class T>
struct circle;
template <>
struct circle<float> {
  static constexpr float inverse = 0.63661975f;  // 2 / pi
  static constexpr float first = 1.5707963f, second = 7.5497894e-08f, third = 5.3903025e-15f;  // of pi / 2
  static constexpr float limit = 0x1p17f;  // to which three parts are enough
  static constexpr float s[] = {-0.16666655f, 0.008332189f, -0.00019518289f};
  static constexpr float c[] = {0.041666646f, -0.001388731f, 2.4432327e-05f};
};
template <>
struct circle<double> {
  static constexpr double inverse = 0.6366197723675814;
  static constexpr double first = 1.5707963267948966, second = 6.123233995736765e-17, third = 1.0828566739219139e-32;
  static constexpr double limit = 0x1p30;
  static constexpr double s[] = {-0.1666666666666663, 0.00833333333332184, -0.0001984126982935854,
                                 2.755731353852426e-06, -2.5050734391501747e-08, 1.5895433433980103e-10};
  static constexpr double c[] = {0.041666666666666595, -0.001388888888887334, 2.480158728899982e-05,
                                 -2.755731421620175e-07, 2.0875705264003752e-09, -1.1358741695127797e-11};
};

// r, and the low two bits of n, for any x > 2^17 (Payne & Hanek 1983): of the bits of 2 / pi, those that would give
// whole turns are left out, and 192 of those that follow are multiplied by the 53 bits of x.
static __attribute__((noinline, unused)) double without_turns_(double x, uint64_t &n) {
  static constexpr uint64_t two_over_pi[] = {  // after 64 zeros
      0, 0xa2f9836e4e441529u, 0xfc2757d1f534ddc0u, 0xdb6295993c439041u, 0xfe5163abdebbc561u, 0xb7246e3a424dd2e0u,
      0x06492eea09d1921cu, 0xfe1deb1cb129a73eu, 0xe88235f52ebb4484u, 0xe99c7026b45f7e41u, 0x3991d639835339f4u,
      0x9c845f8bbdf9283bu, 0x1ff897ffde05980fu, 0xef2f118b5a0a6d1fu, 0x6d367ecf27cb09b7u, 0x4f463f669e5fea2du,
      0x7527bac7ebe5f17bu, 0x3d0739f78a5292eau, 0x6bfb5fb11f8d5d08u, 0x56033046fc7b6babu};
  typedef unsigned __int128 wide;
  const uint64_t i = reinterpret<uint64_t>(x), m = (i & 0xfffffffffffffu) | 0x10000000000000u;
  const int exponent = int(i >> 52) - 1075;  // x = m 2^exponent
  if (exponent == 972) return x - x;         // of infinity
  const int from = exponent - 2 + 64, shift = from % 64;
  const uint64_t *p = two_over_pi + from / 64;
  uint64_t b[3];
  for (int j = 0; j < 3; j++) b[j] = shift ? p[j] << shift | p[j + 1] >> (64 - shift) : p[j];
  const wide low = (wide)m * b[2], middle = (wide)m * b[1] + (low >> 64);
  const wide turns = ((wide)(m * b[0]) << 64) + middle;  // quarter turns, modulo 4, in units of 2^-126
  n = uint64_t((turns + ((wide)1 << 125)) >> 126);       // to the nearest
  const __int128 f = __int128(turns << 2 | (uint64_t(low) >> 62));  // what is over, in units of 2^-128
  const double high = (double)f, rest = (double)(f - (__int128)high);
  const double first = 1.5707963267948966 * 0x1p-128, second = 6.123233995736766e-17 * 0x1p-128;
  const double r = high * first;
  return r + (fma_<double>(high, first, -r) + (high * second + rest * first));
}

template <class C>
FN bool any_(C c) {  // any lane of a comparison
  if constexpr (sizeof(C) > 16) {
    vec<uint64_t, sizeof(C) / 16> half[2];
    memcpy(half, &c, sizeof c);
    return any_(half[0] | half[1]);
  } else if constexpr (sizeof(C) == 16) {
    uint64_t half[2];
    memcpy(half, &c, sizeof c);
    return half[0] | half[1];
  } else return c;
}

// r of a = |x|, and in n's low two bits how many quarter turns: Cody & Waite's three parts of pi / 2, the first product
// and difference exact; numbers beyond their limit one by one.
template <class V>
FN V without_quarters_(V a, words<V> &n) {
  typedef element<V> T;
  typedef circle<T> of;
  const V magic = all<V>(format<T>::magic), sum = fma_<V>(a, all<V>(of::inverse), magic), k = sum - magic;
  V r = fma_<V>(k, all<V>(-of::first), a);
  r = fma_<V>(k, all<V>(-of::third), fma_<V>(k, all<V>(-of::second), r));
  n = bits_(sum);
  if (__builtin_expect(any_(a > all<V>(of::limit)), 0)) {
    T each[lanes<V>::count], left[lanes<V>::count];
    typename format<T>::word turns[lanes<V>::count];
    memcpy(each, &a, sizeof a);
    memcpy(left, &r, sizeof r);
    memcpy(turns, &n, sizeof n);
    for (int i = 0; i < lanes<V>::count; i++)
      if (each[i] > of::limit) {
        uint64_t quarters = 0;
        left[i] = T(without_turns_(each[i], quarters));
        turns[i] = typename format<T>::word(quarters);
      }
    memcpy(&r, left, sizeof r);
    memcpy(&n, turns, sizeof n);
  }
  return r;
}

// The sine of r + n pi / 2: r + r^3 S(r^2), or 1 - r^2 / 2 + r^4 C(r^2) where n is odd; with - before for n = 2 and 3.
template <class V>
FN V sine_(V r, words<V> n) {
  typedef element<V> T;
  typedef circle<T> of;
  const V z = r * r, s = fma_<V>(z * r, polynomial_<of::s>(z), r);
  const V c = fma_<V>(z * z, polynomial_<of::c>(z), fma_<V>(all<V>(T(-0.5)), z, all<V>(1)));
  const words<V> flip = n << (8 * sizeof(T) - 2) & format<T>::sign;
  return reinterpret<V>(bits_((n & 1) != 0 ? c : s) ^ flip);
}

template <class V>
FN V sin_(V x) {
  words<V> n;
  const V r = without_quarters_(abs_(x), n);
  return reinterpret<V>(bits_(sine_(r, n)) ^ (bits_(x) & format<element<V>>::sign));
}

template <class V>
FN V cos_(V x) {
  words<V> n;
  const V r = without_quarters_(abs_(x), n);
  return sine_(r, n + 1);
}
