// Functions of a v that is made of three registers: each part by itself, so that their latencies overlap.
#pragma once
#include "arithmetic.h"

#if PARTS != 1
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
