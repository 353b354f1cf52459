// Lanes are networks: v holds a number of each of NETWORKS networks side by side. For narrow layers and small batches.
//
// network.h is written in lanes alone and runs on four machines; each defines, in this order:
//
//   native, v, s      a register; the number that is computed with; an element of memory
//   NL, NETWORKS      how many neighbouring elements make a v; how many networks go together
//   DOUBLES           how many of them a register of float64 holds
//   get, read, write  element j of an array for all lanes; elements j and on as a v; and back
//   one, as_v, own    a number of each network; count_one counts one that diverged
//   EACH, BARRIER     the independent items of a phase, shared by those who work on a network; the end of the phase
//   product           the one product, with tiles that suit the machine (product.h)
//   copy_in, copy_out rows of the networks `who` into memory, and back of those that are to be kept
//   side_by_side      samples of a network's own, copied to where a product reads them (GATHER)
//   turn (outputs.h)  a transposed copy of a weight; launch (thread.h, block.h): a GPU's rows and networks
//
// On every machine an item computes its numbers by the same operations in the same order, so they have the same bits.
#pragma once
#if PARTS != 1 && !defined(__clang__)
#pragma GCC optimize("no-tree-ter")  // or GCC interleaves the three: 6 to 9 % slower
#endif
#include "arithmetic.h"
static_assert((PARTS == 1 || PARTS == 3) && !WIDE && !TEAM && !THREADS && TOGETHER == 1 && NEAR, "no such layout");

typedef vec<real, VECTOR> native;
#if PARTS == 1
typedef native v;
#else
// With three registers the steps of three groups of tiny networks overlap, and hide each other's latency.
struct v {
  native a, b, c;
  v() = default;
  INLINE v(real x) : a(all<native>(x)), b(a), c(a) {}
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
INLINE v all<v>(real x) {
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
ONE(sqrt_) ONE(exp_) ONE(expm1_) ONE(log_) ONE(log1p_) ONE(tanh_) ONE(erf_) ONE(sin_) ONE(cos_) ONE(floor_) ONE(abs_)
ONE(sign_)
TWO(min_) TWO(max_) TWO(at_least_) TWO(at_most_) TWO(gt_) TWO(lt_) TWO(ge_) TWO(le_) TWO(eq_) TWO(ne_)
THREE(fma_) THREE(lerp_) THREE(where_)
#endif

typedef v s, one;
constexpr int NL = 1, NETWORKS = VECTOR * PARTS;
constexpr int DOUBLES = least(NETWORKS, most(1, VECTOR * (int)sizeof(real) / 8));  // networks of a register of float64
FN v get(const s *p, int j) { return p[j]; }
FN v read(const s *p, int j) { return p[j]; }
FN void write(s *p, int j, v x) { p[j] = x; }
FN v as_v(one x) { return x; }
FN one own(const real (&x)[NETWORKS]) { return load<v>(x); }

#define EACH(t, n) for (int t = 0; t < (n); ++t)
#define BARRIER
FN void count_one(int64_t *count) { __atomic_add_fetch(count, 1, __ATOMIC_RELAXED); }

#include "product.h"
template <int M, int N, int K, class A, class B, class C, class Epilogue>
FN void product(const A &a, const B &b, const C &c, const Epilogue &epilogue) {
  plain_product<Neighbours, M, N, K>(a, b, c, epilogue);
}

// ---- rows: numbers of NETWORKS rows side by side, element first + i of row n in lane n of to[i]; and back ----

template <int n>
FN void interleave_square(real *to, const real *const *from, int first) {
  for (int part = 0; part < PARTS; part++) {
    native r[VECTOR];
    UNROLL for (int i = 0; i < VECTOR; i++) r[i] = load_part<native, n>(from[part * VECTOR + i] + first);
    transpose(r);
    UNROLL for (int i = 0; i < n; i++) store(to + i * NETWORKS + part * VECTOR, r[i]);
  }
}
template <int n>
FN void separate_square(real *const *to, const real *from, int first) {
  for (int part = 0; part < PARTS; part++) {
    native r[VECTOR];
    UNROLL for (int i = 0; i < VECTOR; i++) r[i] = i < n ? load<native>(from + i * NETWORKS + part * VECTOR) : native{};
    transpose(r);
    UNROLL for (int i = 0; i < VECTOR; i++)
      if (to[part * VECTOR + i]) store_part<native, n>(to[part * VECTOR + i] + first, r[i]);
  }
}

// f(number of neighbours, which they are) for whole squares, and for what is left.
template <int n>
struct number {
  static constexpr int value = n;
};
template <int count, class F>
FN void squares(F f) {
  EACH(square, count / VECTOR) { f(number<VECTOR>(), square * VECTOR); }
  if constexpr (count % VECTOR) f(number<count % VECTOR>(), count - count % VECTOR);
}
template <int count>
FN void interleave(real *to, const real *const *from, int first) {
  squares<count>([&](auto n, int i) { interleave_square<n.value>(to + i * NETWORKS, from, first + i); });
}
template <int count>
FN void separate(real *const *to, const real *from, int first) {
  squares<count>([&](auto n, int i) { separate_square<n.value>(to, from + i * NETWORKS, first + i); });
}

// f(number of neighbours, where they begin in a row, where here): all of a row, or of a layer, or, where the rows of a
// weight are padded, each of these.
template <int l = 0, class F>
FN void runs(F f) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Op = PITCH[l + 1], from = ROW_AT[l], to = WEIGHT_AT[l];
  if constexpr (l == 0 && P == ROW) {
    f(number<ROW>(), 0, 0);
  } else {
    if constexpr (Op == O) {
      f(number<I * O + BIASES[l]>(), from, to);
    } else {
      for (int i = 0; i < I; i++) f(number<O>(), from + i * O, to + i * Op);
      f(number<BIASES[l]>(), from + I * O, BIAS_AT[l]);
    }
    if constexpr (l + 1 < LAYERS) runs<l + 1>(f);
  }
}
template <class Who>
FN void copy_in(s *to, const real *rows, Who who) {
  const real *from[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) from[n] = rows + who[n] * ROW;
  runs([&](auto count, int in_row, int here) { interleave<count.value>((real *)(to + here), from, in_row); });
}
template <class Who>
FN void copy_out(real *rows, const s *from, Who who, const bool *keep) {
  real *to[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) to[n] = keep[n] ? rows + who[n] * ROW : nullptr;
  runs([&](auto count, int in_row, int here) { separate<count.value>(to, (const real *)(from + here), in_row); });
}

// inputs(b, n): where those of sample b of network n begin; target(b, n, o).
template <int rows, int targets, class Inputs, class Target>
FN void side_by_side(s *x, s *y, Inputs inputs, Target target) {
  for (int b = 0; b < rows; b++) {
    const real *from[NETWORKS];
    for (int n = 0; n < NETWORKS; n++) from[n] = inputs(b, n);
    interleave<WIDTH[0]>((real *)(x + b * PITCH[0]), from, 0);
  }
  for (int at = 0; at < rows * targets; at++)
    for (int n = 0; n < NETWORKS; n++) ((real *)y)[at * NETWORKS + n] = target(at / targets, n, at % targets);
}
