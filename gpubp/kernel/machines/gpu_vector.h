// Of gpu_block.h, where lanes are outputs: a v is REGISTERS_PER_V neighbouring entries, 16 bytes, which one access to
// shared memory moves.
#pragma once

struct alignas(sizeof(real) * REGISTERS_PER_V) v {
  real part[REGISTERS_PER_V];
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
INLINE v all<v>(real x) {
  return each_part([&](int) { return x; });
}
FN v operator-(v x) { return each_part([&](int i) { return -x.part[i]; }); }
#define OPERATOR(sign)                                                                        \
  FN v operator sign(v x, v y) { return each_part([&](int i) { return x.part[i] sign y.part[i]; }); } \
  FN v operator sign(v x, real y) { return x sign all<v>(y); }                                \
  FN v operator sign(real x, v y) { return all<v>(x) sign y; }
OPERATOR(+) OPERATOR(-) OPERATOR(*) OPERATOR(/)
#define ONE(f) \
  FN v f(v x) { return each_part([&](int i) { return f(x.part[i]); }); }
#define TWO(f) \
  FN v f(v x, v y) { return each_part([&](int i) { return f(x.part[i], y.part[i]); }); }
#define THREE(f) \
  FN v f(v x, v y, v z) { return each_part([&](int i) { return f(x.part[i], y.part[i], z.part[i]); }); }
DEFINE_FUNCTIONS(ONE, TWO, THREE)

FN v broadcast(const entry *p, int j) { return all<v>(p[j]); }
FN v read(const entry *p, int j) { return *(const v *)(p + j); }
FN void write(entry *p, int j, v x) { *(v *)(p + j) = x; }
FN v as_v(per_network x) { return all<v>(x); }
