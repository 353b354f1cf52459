// Networks are shown samples and do not learn: their outs for each (predict), or their loss and metric (evaluate).
//
// The twin of evaluate.py. Sums are float64, in one order on every machine: sample m of a network belongs to partial
// sum m % WAYS, where samples are added in order, and partial sums are added in order at the end.
#pragma once
#include "network.h"

// Piece by piece through the networks: f(first, rows) after the outs of samples first .. first + rows of Group.size are
// there. Beyond its own end a network sees its last sample again.
template <class F>
FN void show(Work &k, Who who, F f) {
  Group &g = *k.g;
  const Job &job = *k.job;
  each_network(who, [&](int n, int64_t at) {
    for (int h = 0; h < HYPERS; h++) g.typed[h][n] = (real)job.hyper[h][at];
    g.size[n] = ROWS ? job.sizes[job.position[at]] : job.samples;
    begin_data(k, n, at);
  });
  fetch(k, who);
  int64_t longest = g.size[0];
  for (int n = 1; n < NETWORKS && ROWS; n++) longest = g.size[n] > longest ? g.size[n] : longest;
  k.index = &g.index[0][0];
  for (int64_t first = 0; first < longest; first += CHUNK) {
    const int rows = longest - first < CHUNK ? (int)(longest - first) : CHUNK;
    EACH(b, CHUNK) {
      for (int n = 0; n < INDEXED; n++) {
        const int64_t last = g.size[n] - 1, place = first + b < last ? first + b : last;
        g.index[b][n] = row_at(k, n, (uint32_t)place);
      }
    }
    BARRIER
    gather<CHUNK, TASK == EVALUATE>(k, 0);
    forward<0, CHUNK, false>(k, 0);
    f(first, rows);
  }
}

#if TASK == PREDICT

// `there` says which of the lanes have a network.
FN void tell(Work k, Who who, const bool *there) {
  constexpr int Op = PITCH[L];
  show(k, who, [&](int64_t first, int rows) {
    const real *outs = (const real *)(k.m.outs + OUTS_AT[L - 1]);
    for (int n = 0; n < NETWORKS; n++)
      EACH(b, there[n] ? rows : 0) {
        for (int o = 0; o < OUTPUTS; o++)
          k.job->outs[((int64_t)who[n] * k.job->samples + first + b) * OUTPUTS + o] = outs[(b * Op + o) * NETWORKS + n];
      }
  });
}

#else

// A float64 of each of DOUBLES networks, from n on. Explicit vectors: GCC 12 miscompiles the same
// sums written as loops over networks.
typedef vec<double, DOUBLES> doubles;
template <class F>
FN void by_networks(F f) {
  for (int n = 0; n < NETWORKS; n += DOUBLES) f(n);
}
template <class F>
FN doubles each_double(F f) {
  doubles x;
  for (int j = 0; j < DOUBLES; j++) ((double *)&x)[j] = f(j);
  return x;
}
FN doubles doubles_of(const real *p) { return convert_<doubles>(load<vec<real, DOUBLES>>(p)); }

FN doubles targets_of(const Work &k, int n, int b, int o) {
  if constexpr (!GATHER) return all<doubles>((double)target_of(k, b, n, o));  // one for all
  return each_double([&](int j) { return (double)target_of(k, b, n + j, o); });
}

// How much sample b of a piece, `place` of all, counts.
FN doubles say_of(const Work &k, int n, int b, int64_t place) {
  if constexpr (!SAMPLE_WEIGHT && !ROWS) return all<doubles>(1);
  return each_double([&](int j) {
    const bool own = !ROWS || place < k.g->size[n + j];
    return own ? (double)weight_of_sample(k, b, n + j) : 0;
  });
}
// What has no weight has no say, not even where it is infinite.
FN doubles said(doubles x, doubles say) {
  if constexpr (SAMPLE_WEIGHT || ROWS) x = where_(ne_(say, all<doubles>(0)), x * say, all<doubles>(0));
  return x;
}
// `say` times the weight of the sample's class.
FN doubles counted_of(const Work &k, int n, int b, doubles say) {
  if constexpr (!CLASS_WEIGHT) return say;
  const real *of_class = (const real *)k.m.class_weight;
  return each_double([&](int j) {
    real counted = (real)((const double *)&say)[j];
    counted *= of_class[(int)target_of(k, b, n + j, 0) * NETWORKS + n + j];
    return (double)counted;
  });
}

// Add f(b, sums) of the samples of a piece that belong to a partial sum of `ways` to `count` sums, in order: sum i of
// networks n and on stands at sums + i * apart. In registers meanwhile: CHUNK is known to the compiler.
template <int ways, int count, class F>
FN void add_up(Group &g, int first_sum, int apart, int n, int way, int64_t first, int rows, F f) {
  doubles sums[count];
  UNROLL for (int i = 0; i < count; i++) sums[i] = load<doubles>(&g.sums[first_sum + i * apart][n]);
  for (int b = CHUNK % ways ? (int)((way + ways - first % ways) % ways) : way; b < CHUNK; b += ways)
    if (b < rows) f(b, sums);
  UNROLL for (int i = 0; i < count; i++) store<doubles>(&g.sums[first_sum + i * apart][n], sums[i]);
}

// Add a piece to the sums.
FN void add_piece(const Work &k, int64_t first, int rows) {
  constexpr int Op = PITCH[L], sums_of_a_way = MISSED / WAYS;
  EACH(way, WAYS) {
    by_networks([&](int n) {
      add_up<WAYS, sums_of_a_way>(*k.g, ERROR + way, WAYS, n, way, first, rows, [&](int b, doubles *sums) {
        const doubles say = say_of(k, n, b, first + b);
        auto add = [&](int which, doubles x) { sums[which / WAYS] = sums[which / WAYS] + x; };
        add(ERROR, said(doubles_of((const real *)k.m.error + b * NETWORKS + n), say));
        if constexpr (METRIC != R2) {
          constexpr double most = METRIC == SIGN ? OUTPUTS : 1;
          add(HITS, said(doubles_of((const real *)k.m.hits + b * NETWORKS + n) / all<doubles>(most), say));
        }
        if constexpr (WEIGHTED) add(COUNTED, counted_of(k, n, b, say));
        if constexpr (SAMPLE_WEIGHT) add(WEIGHT, say);
      });
    });
  }
  if constexpr (METRIC == R2) {
    const real *expected = (const real *)(k.m.outs + OUTS_AT[L - 1]);
    EACH(item, OUTPUTS * R2_WAYS) {
      const int o = item / R2_WAYS, way = item % R2_WAYS;
      by_networks([&](int n) {
        add_up<R2_WAYS, 1>(*k.g, MISSED + item, 0, n, way, first, rows, [&](int b, doubles *sums) {
          const doubles missed = targets_of(k, n, b, o) - doubles_of(expected + (b * Op + o) * NETWORKS + n);
          sums[0] = sums[0] + said(missed * missed, say_of(k, n, b, first + b));
        });
      });
    }
  }
  BARRIER
}

FN doubles folded(const Group &g, int from, int ways, int n) {
  doubles sum = load<doubles>(g.sums[from] + n);
  for (int way = 1; way < ways; way++) sum = sum + load<doubles>(g.sums[from + way] + n);
  return sum;
}
FN doubles weight_of_all(const Group &g, int n) {
  if constexpr (SAMPLE_WEIGHT) return folded(g, WEIGHT, WAYS, n);
  return each_double([&](int j) { return (double)g.size[n + j]; });
}

// 1 - missed / spread of an output; NaN where its targets are constant, as the spread then is.
FN doubles explained(const Work &k, Who who, int o, int n) {
  constexpr bool own = ROWS || OWN_INPUTS || SAMPLE_WEIGHT == 2;
  const doubles missed = folded(*k.g, MISSED + o * R2_WAYS, R2_WAYS, n);
  return all<doubles>(1) - missed / each_double([&](int j) {
    return k.job->spread[(own ? k.job->position[who[n + j]] * OUTPUTS : 0) + o];
  });
}

// `there` says which of the lanes have a network.
FN void tell(Work k, Who who, const bool *there) {
  Group &g = *k.g;
  const Job &job = *k.job;
  EACH(item, SUMS) { by_networks([&](int n) { store<doubles>(&g.sums[item][n], all<doubles>(0)); }); }
  show(k, who, [&](int64_t first, int rows) {
    loss_and_delta<CHUNK, false>(k, 0);
    add_piece(k, first, rows);
  });
  if constexpr (METRIC == R2) {
    EACH(o, OUTPUTS) {
      by_networks([&](int n) { store<doubles>(&g.sums[MISSED + o * R2_WAYS][n], explained(k, who, o, n)); });
    }
    BARRIER
  }
  EACH(item, NETWORKS / DOUBLES) {
    const int n = item * DOUBLES;
    const doubles weight = weight_of_all(g, n), counted = WEIGHTED ? folded(g, COUNTED, WAYS, n) : weight;
    const doubles loss = folded(g, ERROR, WAYS, n) * all<doubles>(SCALE) / counted;
    doubles metric = all<doubles>(0);
    if constexpr (METRIC == R2) {
      for (int o = 0; o < OUTPUTS; o++) metric = metric + load<doubles>(&g.sums[MISSED + o * R2_WAYS][n]);
      metric = metric / all<doubles>(OUTPUTS);
    } else metric = folded(g, HITS, WAYS, n) / weight;
    for (int j = 0; j < DOUBLES; j++)
      if (there[n + j]) {
        job.figures[who[n + j]] = ((const double *)&loss)[j];
        job.figures[job.count + who[n + j]] = ((const double *)&metric)[j];
      }
  }
}

#endif
