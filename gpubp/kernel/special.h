// erf, sin and cos: the rest of arithmetic.h.
#pragma once

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
  const V a = at_most_(abs_(x), splat<V>(of::limit)), one = splat<V>(1);
  const V small = fma_<V>(x, polynomial_<of::p>(a * a), x), large = one - exp_within_(polynomial_<of::g>(a));
  return a < one ? small : with_sign_(large, x);
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

// r of a = |x|, and in n's low two bits how many quarter turns: Cody & Waite's three parts of pi / 2, the first product
// and difference exact; numbers beyond their limit one by one.
template <class V>
FN V without_quarters_(V a, words<V> &n) {
  typedef element<V> T;
  typedef circle<T> of;
  const V magic = splat<V>(format<T>::magic), sum = fma_<V>(a, splat<V>(of::inverse), magic), k = sum - magic;
  V r = fma_<V>(k, splat<V>(-of::first), a);
  r = fma_<V>(k, splat<V>(-of::third), fma_<V>(k, splat<V>(-of::second), r));
  n = bits_(sum);
  if (__builtin_expect(any((words<V>)(a > splat<V>(of::limit))), 0)) {
    T lane[lanes<V>::count], rest[lanes<V>::count];
    typename format<T>::word turns[lanes<V>::count];
    memcpy(lane, &a, sizeof a);
    memcpy(rest, &r, sizeof r);
    memcpy(turns, &n, sizeof n);
    for (int i = 0; i < lanes<V>::count; i++)
      if (lane[i] > of::limit) {
        uint64_t quarters = 0;
        rest[i] = T(without_turns_(lane[i], quarters));
        turns[i] = typename format<T>::word(quarters);
      }
    memcpy(&r, rest, sizeof r);
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
  const V c = fma_<V>(z * z, polynomial_<of::c>(z), fma_<V>(splat<V>(T(-0.5)), z, splat<V>(1)));
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
