// Sizes: the number of a layer, or of a chunk's samples, is passed as a `constant`, so that the compiler knows all that
// follows from it. In a GENERAL kernel, which serves networks of any widths, it is an int, and sizes are in Job.shape.
//
//   SIZE(n)        n as such an argument
//   OF(array, l)   entry l of `array`, which has a number for every layer or width, such as WIDTH
//   above, under   the number of the next layer, and of the one before it, or 0 for the first
//   IF             `if constexpr`, or `if` in a GENERAL kernel
#pragma once
#include "simd.h"

template <int l>
constexpr constant<l + 1> above(constant<l>) {
  return {};
}
template <int l>
constexpr constant<l ? l - 1 : 0> under(constant<l>) {
  return {};
}
constexpr int above(int l) { return l + 1; }
constexpr int under(int l) { return max_of(l - 1, 0); }

#if GENERAL
#define SIZE(n) (n)
#define IF if
#define OF(array, l) (array)[l]
template <class F>
FN void for_each_layer(F f) {
  for (int l = 0; l < LAYERS; l++) f(l);
}
template <class F>
FN void for_each_layer_down(F f) {
  for (int l = LAYERS; l-- > 0;) f(l);
}
template <class F>
FN auto sum_of_layers(F f) {  // f(0) + (f(1) + (f(2) + ...))
  auto sum = f(LAYERS - 1);
  for (int l = LAYERS - 1; l-- > 0;) sum = f(l) + sum;
  return sum;
}
#else
#define SIZE(n) constant<(n)>()
#define IF if constexpr
#define OF(array, l) constant<array[decltype(l)::value]>()
template <int l = 0, class F>
FN void for_each_layer(F f) {
  f(constant<l>());
  if constexpr (l + 1 < LAYERS) for_each_layer<l + 1>(f);
}
template <int l = LAYERS - 1, class F>
FN void for_each_layer_down(F f) {
  f(constant<l>());
  if constexpr (l > 0) for_each_layer_down<l - 1>(f);
}
template <int l = 0, class F>
FN auto sum_of_layers(F f) {
  auto sum = f(constant<l>());
  if constexpr (l + 1 < LAYERS) sum = sum + sum_of_layers<l + 1>(f);
  return sum;
}
#endif
