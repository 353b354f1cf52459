// Of gpu_block.h, where lanes are outputs: a v is REGISTERS_PER_V neighbouring entries, 16 bytes, which one access to
// shared memory moves.
#pragma once

struct alignas(sizeof(real) * REGISTERS_PER_V) v {
  real part[REGISTERS_PER_V];
};
template <int count>
struct alignas(sizeof(real) * count) Neighbours {  // which one access moves, too
  real part[count];
};
template <>
struct lanes<v> {
  typedef real element;
  static constexpr int count = REGISTERS_PER_V;
};
template <class F>
FN v each_part(const F &f) {
  v x;
  UNROLL for (int i = 0; i < REGISTERS_PER_V; i++) x.part[i] = f(i);
  return x;
}
template <>
INLINE v splat<v>(real x) {
  return each_part([&](int) { return x; });
}

// Quotients and roots of float32: as simd.h has them for numbers of usual size, but with one test for all parts: with a
// test for each, as the compiler has it, they wait for each other.
FN bool usual(float x) { return (abs_(x) >= 0x1p-60f) & (abs_(x) <= 0x1p60f); }
template <class F>
FN v part_by_part(v x, v y, const F &f) {  // in a loop, so that what is rarely needed is short
  v z = x;
  NO_UNROLL for (int i = 0; i < REGISTERS_PER_V; i++) {
    real a = x.part[0], b = y.part[0];
    UNROLL for (int j = 1; j < REGISTERS_PER_V; j++) a = i == j ? x.part[j] : a, b = i == j ? y.part[j] : b;
    const real c = f(a, b);
    UNROLL for (int j = 0; j < REGISTERS_PER_V; j++) z.part[j] = i == j ? c : z.part[j];
  }
  return z;
}
FN v operator/(v x, v y) {
  if constexpr (sizeof(real) != 4) return each_part([&](int i) { return x.part[i] / y.part[i]; });
  bool fast = true;
  const v quotient = each_part([&](int i) {
    const real a = x.part[i], b = y.part[i];
    fast &= usual(b) & (usual(a) | (a == 0));
    return a == 0 ? a * near_reciprocal(b) : usual_quotient(a, b);
  });
  return fast ? quotient : part_by_part(x, y, [](real a, real b) { return a / b; });
}
FN v operator/(v x, real y) { return x / splat<v>(y); }
FN v operator/(real x, v y) { return splat<v>(x) / y; }
FN v sqrt_(v x) {
  if constexpr (sizeof(real) != 4) return each_part([&](int i) { return sqrt_(x.part[i]); });
  bool fast = true;
  const v root = each_part([&](int i) {
    const real a = x.part[i], near = near_reciprocal_root(max_(a, real(0x1p-100))), r = a * near;
    fast &= ((a >= real(0x1p-100)) & (a <= real(0x1p60))) | (a == 0);
    return fma_(fma_(-r, r, a), near * real(0.5), r);
  });
  return fast ? root : part_by_part(x, x, [](real a, real) { return sqrt_(a); });
}
FN v operator-(v x) { return each_part([&](int i) { return -x.part[i]; }); }
#define OPERATOR(sign)                                                                                \
  FN v operator sign(v x, v y) { return each_part([&](int i) { return x.part[i] sign y.part[i]; }); } \
  FN v operator sign(v x, real y) { return x sign splat<v>(y); }                                        \
  FN v operator sign(real x, v y) { return splat<v>(x) sign y; }
OPERATOR(+) OPERATOR(-) OPERATOR(*)
#define ONE(f) \
  FN v f(v x) { return each_part([&](int i) { return f(x.part[i]); }); }
#define TWO(f) \
  FN v f(v x, v y) { return each_part([&](int i) { return f(x.part[i], y.part[i]); }); }
#define THREE(f) \
  FN v f(v x, v y, v z) { return each_part([&](int i) { return f(x.part[i], y.part[i], z.part[i]); }); }
DEFINE_FUNCTIONS(ONE, TWO, THREE)

FN v broadcast(const entry *p, int j) { return splat<v>(p[j]); }
FN v read(const entry *p, int j) { return *(const v *)(p + j); }
FN void write(entry *p, int j, v x) { *(v *)(p + j) = x; }
FN v as_v(per_network x) { return splat<v>(x); }
