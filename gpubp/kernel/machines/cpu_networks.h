// Lanes are networks: v holds a number of each of NETWORKS networks side by side. For narrow layers and small batches.
#pragma once
#if REGISTERS_PER_V != 1 && !defined(__clang__)
#pragma GCC optimize("no-tree-ter")  // or GCC interleaves the three: 6 to 9 % slower
#endif
#include "arithmetic.h"

typedef vec<real, VECTOR> native;
#if REGISTERS_PER_V == 1
typedef native v;
#else
// With three registers the operations of three times as many tiny networks overlap, and hide each other's latency.
struct v {
  native a, b, c;
  v() = default;
  INLINE v(real x) : a(splat<native>(x)), b(a), c(a) {}
  INLINE v(native a, native b, native c) : a(a), b(b), c(c) {}
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
INLINE v hold<v>(v x) {
  return x;  // for three there are too few registers: held, 2-2-2 lost 17 %
}
template <>
INLINE v splat<v>(real x) {
  return v(x);
}
template <>
INLINE v load<v>(const real *p) {
  return v(load<native>(p), load<native>(p + VECTOR), load<native>(p + 2 * VECTOR));
}
template <>
INLINE void store<v>(real *p, v x) {
  store<native>(p, x.a);
  store<native>(p + VECTOR, x.b);
  store<native>(p + 2 * VECTOR, x.c);
}
#define ONE(f) \
  FN v f(v x) { return v(f(x.a), f(x.b), f(x.c)); }
#define TWO(f) \
  FN v f(v x, v y) { return v(f(x.a, y.a), f(x.b, y.b), f(x.c, y.c)); }
#define THREE(f) \
  FN v f(v x, v y, v z) { return v(f(x.a, y.a, z.a), f(x.b, y.b, z.b), f(x.c, y.c, z.c)); }
ONE(sqrt_) DEFINE_FUNCTIONS(ONE, TWO, THREE)
#endif

typedef v entry, per_network;
constexpr int ENTRIES_PER_V = 1, NETWORKS = VECTOR * REGISTERS_PER_V;
constexpr int DOUBLE_LANES = min_of(NETWORKS, max_of(1, VECTOR * (int)sizeof(real) / 8));

#define PARALLEL_FOR(item, count) for (int item = 0; item < (count); ++item)
#define BARRIER

#include "product.h"

// ---- parameters and samples: Job's arrays are rows, a network each; in Memory the rows are side by side ----

// Number begin + i of row from[j] goes to lane j of entry i of `to`, for i < n <= VECTOR.
template <int n>
FN void interleave_square(real *to, const real *const *from, int begin) {
  for (int part = 0; part < REGISTERS_PER_V; part++) {
    native r[VECTOR];
    UNROLL for (int i = 0; i < VECTOR; i++) r[i] = load_part<native, n>(from[part * VECTOR + i] + begin);
    transpose(r);
    UNROLL for (int i = 0; i < n; i++) store(to + i * NETWORKS + part * VECTOR, r[i]);
  }
}
template <int n>
FN void separate_square(real *const *to, const real *from, int begin) {  // back; null: a row to leave as it is
  for (int part = 0; part < REGISTERS_PER_V; part++) {
    native r[VECTOR];
    UNROLL for (int i = 0; i < VECTOR; i++) r[i] = i < n ? load<native>(from + i * NETWORKS + part * VECTOR) : native{};
    transpose(r);
    UNROLL for (int i = 0; i < VECTOR; i++)
      if (to[part * VECTOR + i]) store_part<native, n>(to[part * VECTOR + i] + begin, r[i]);
  }
}

// f(constant<n>(), begin) for `count` numbers in whole squares, and for the rest.
template <int count, class F>
FN void for_each_square(F f) {
  PARALLEL_FOR(square, count / VECTOR) { f(constant<VECTOR>(), square * VECTOR); }
  if constexpr (count % VECTOR) f(constant<count % VECTOR>(), count - count % VECTOR);
}
template <int count>
FN void interleave(real *to, const real *const *from, int begin) {
  for_each_square<count>([&](auto n, int i) { interleave_square<n.value>(to + i * NETWORKS, from, begin + i); });
}
template <int count>
FN void separate(real *const *to, const real *from, int begin) {
  for_each_square<count>([&](auto n, int i) { separate_square<n.value>(to, from + i * NETWORKS, begin + i); });
}

// f(constant<n>(), place in a packed row, place in Memory.params) for every run of numbers that is a run in both: all
// parameters, or those of a layer, or, where PITCH pads it (Plan.pitch), a row of a weight.
template <int l = 0, class F>
FN void for_each_run(F f) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], O_pitch = PITCH[l + 1], from = LAYER_AT[l], to = WEIGHT_AT[l];
  if constexpr (l == 0 && PADDED_P == P) {
    f(constant<P>(), 0, 0);
  } else {
    if constexpr (O_pitch == O) {
      f(constant<I * O + BIAS_COUNT[l]>(), from, to);
    } else {
      for (int i = 0; i < I; i++) f(constant<O>(), from + i * O, to + i * O_pitch);
      f(constant<BIAS_COUNT[l]>(), from + I * O, BIAS_AT[l]);
    }
    if constexpr (l + 1 < LAYERS) for_each_run<l + 1>(f);
  }
}
template <class Networks>
FN void copy_in(entry *to, const real *rows, Networks networks) {
  const real *from[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) from[n] = rows + networks[n] * P;
  for_each_run([&](auto count, int packed, int padded) {
    interleave<count.value>((real *)(to + padded), from, packed);
  });
}
template <class Networks>
FN void copy_out(real *rows, const entry *from, Networks networks, const bool *keep) {
  real *to[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) to[n] = keep[n] ? rows + networks[n] * P : nullptr;
  for_each_run([&](auto count, int packed, int padded) {
    separate<count.value>(to, (const real *)(from + padded), packed);
  });
}

// inputs(b, n): where the inputs of sample b of network n begin; target(b, n, o).
template <class Samples, class Targets, class Inputs, class Target>
FN void gather_samples(Samples samples, Targets targets, entry *x, entry *y, Inputs inputs, Target target) {
  for (int b = 0; b < samples; b++) {
    const real *from[NETWORKS];
    for (int n = 0; n < NETWORKS; n++) from[n] = inputs(b, n);
    interleave<WIDTH[0]>((real *)(x + b * PITCH[0]), from, 0);
  }
  for (int at = 0; at < samples * targets; at++)
    for (int n = 0; n < NETWORKS; n++) ((real *)y)[at * NETWORKS + n] = target(at / targets, n, at % targets);
}
