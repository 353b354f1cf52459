// How rows of networks get into a group and back, and samples of their own beside each other.
#pragma once
#include "memory.h"

#if WIDE
// f(numbers, where they begin in a row, where here) for every row of a weight, and for every bias.
template <class F>
FN void lines(F f) {
  for (int l = 0; l < L; l++) {
    const int I = WIDTH[l], O = WIDTH[l + 1], bias = bias_size(l);
    EACH(i, I + (bias > 0)) { f(i < I ? O : bias, row_of(l) + i * O, weight_of(l) + i * line(O)); }
  }
}
FN void copy_in(s *to, const real *rows, Who who) {
  const real *from = rows + who[0] * row_of(L);
  lines([&](int count, int in_row, int here) {
    memcpy(to + here, from + in_row, count * sizeof(real));
    memset(to + here + count, 0, (pad(count) - count) * sizeof(real));
  });
}
FN void copy_out(real *rows, const s *from, Who who, const bool *keep) {
  real *to = rows + who[0] * row_of(L);
  if (keep[0]) lines([&](int count, int in_row, int here) { memcpy(to + in_row, from + here, count * sizeof(real)); });
}
template <int rows, bool targets = true>
FN void gather(const Work &, int) {}
#elif THREADS && TEAM
// f(place in a row, place here) for every number of a row: neighbouring threads take neighbours.
template <int l = 0, class F>
FN void each_number(F f) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], weights = I * O;
  EACH(at, weights + bias_size(l)) {
    f(row_of(l) + at, at < weights ? weight_of(l) + at / O * line(O) + at % O : bias_of(l) + at - weights);
  }
  if constexpr (l + 1 < L) each_number<l + 1>(f);
}
FN void copy_in(s *to, const real *rows, Who who) {
  const real *from = rows + who[0] * NEXT_ROW;
  each_number([&](int in_row, int here) { to[here] = from[in_row]; });
}
FN void copy_out(real *rows, const s *from, Who who, const bool *keep) {
  real *to = rows + who[0] * NEXT_ROW;
  if (keep[0]) each_number([&](int in_row, int here) { to[in_row] = from[here]; });
}
template <int rows, bool targets = true>
FN void gather(const Work &k, int first) {
  constexpr int I = WIDTH[0];
  EACH(at, rows * I) { k.m.x[at / I * line(I) + at % I] = inputs_of(k, first + at / I)[at % I]; }
  EACH(at, targets ? rows * TARGETS : 0) { k.m.y[at] = target_of(k, first + at / TARGETS, 0, at % TARGETS); }
  BARRIER
}
#else
// Numbers of NETWORKS rows, side by side: element first + i of row n in lane n of to[i], for `count` of i; and
// back, but for rows that are null.
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
  if constexpr (count % VECTOR) {
    EACH(item, 1) { f(number<count % VECTOR>(), count - count % VECTOR); }
  }
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
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], from = row_of(l), to = weight_of(l);
  if constexpr (l == 0 && weight_of(L) == row_of(L)) {
    f(number<row_of(L)>(), 0, 0);
  } else {
    if constexpr (line(O) == O) {
      f(number<I * O + bias_size(l)>(), from, to);
    } else {
      for (int i = 0; i < I; i++) f(number<O>(), from + i * O, to + i * line(O));
      f(number<bias_size(l)>(), from + I * O, bias_of(l));
    }
    if constexpr (l + 1 < L) runs<l + 1>(f);
  }
}
FN void copy_in(s *to, const real *rows, Who who) {
  const real *from[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) from[n] = rows + who[n] * NEXT_ROW;
  runs([&](auto count, int in_row, int here) { interleave<count.value>((real *)(to + here), from, in_row); });
}
FN void copy_out(real *rows, const s *from, Who who, const bool *keep) {
  real *to[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) to[n] = keep[n] ? rows + who[n] * NEXT_ROW : nullptr;
  runs([&](auto count, int in_row, int here) { separate<count.value>(to, (const real *)(from + here), in_row); });
}

template <int rows, bool targets = true>
FN void gather(const Work &k, int first) {
  if constexpr (GATHER) {
    for (int b = 0; b < rows; b++) {
      const real *from[NETWORKS];
      for (int n = 0; n < NETWORKS; n++) from[n] = inputs_of(k, first + b, n);
      interleave<WIDTH[0]>((real *)(k.m.x + b * line(WIDTH[0])), from, 0);
    }
    EACH(b, rows) {
      real *y = (real *)(k.m.y + b * TARGETS);
      for (int o = 0; o < TARGETS && targets; o++)
        for (int n = 0; n < NETWORKS; n++) y[o * NETWORKS + n] = target_of(k, first + b, n, o);
    }
    BARRIER
  }
}
#endif

// The rows of the networks `who` into the group; in Job's rows nothing is padded.
FN void fetch(const Work &k, Who who) {
  for (int slot = 0; slot <= SLOTS; slot++)
    copy_in(numbers_of(k.m, slot), slot ? k.job->slots[slot - 1] : k.job->params, who);
  BARRIER
}
// Where a network's own samples begin, and what its classes weigh.
FN void begin_data(const Work &k, int n, int64_t at) {
  const Job &job = *k.job;
  if (OWN || SAMPLE_WEIGHT == 2) {
    k.g->base[n] = job.position[at] * job.samples;
    k.g->rows[n] = job.position[at] * job.longest;
  }
  if (CLASS_WEIGHT)
    for (int o = 0; o < OUTPUTS; o++)
      ((real *)k.m.class_weight)[o * NETWORKS + n] = (real)job.class_weight[at * OUTPUTS + o];
}
