// READ THIS FIRST. A group of networks side by side, or one network, trained for K steps: forward, loss, backward,
// update.
//
// The twin of backprop.py and engines/eager.py: the same words (net, out, delta), each phase below its forward twin.
// machine.h says what a lane is; the rules (value, slope, loss_value, loss_slope, prepare, update) are the tables'
// rows, translated by engines/translate.py; the constants in capitals say what was asked for (engines/program.py).
// Every sum runs in one order, over k in a product, over samples, over the outputs of a sample, down and across a
// gradient, so that all machines give the same bits.
#pragma once
#include "memory.h"
#include "samples.h"

// ---- product: C(m, n) = sum over k, in order, of A(m, k) B(k, n), then epilogue(m, n, sum) ----

// Tiles of accumulators are the independent items; their shape is the one with the least cost (machine.h).
struct Shape {
  int rows, cols;
};
constexpr Shape tile_for(int m, int n, int k) {
  const bool far = WIDE && m * k * sizeof(real) > 32768;  // A does not fit L1: the more rows, the fewer times it is read
  Shape best = {1, 1};
  long cheapest = -1;
  for (int rows = 1; rows <= least(m, MOST_ROWS); rows++)
    for (int cols = 1; cols <= least(n, MOST_COLS) && rows * cols <= ACCUMULATORS; cols++) {
      long cost = tile_cost((long)cdiv(m, rows) * cdiv(n, cols), rows, cols);
      bool better = far ? rows > best.rows : rows * cols > best.rows * best.cols;
      if (cheapest < 0 || cost < cheapest || (cost == cheapest && better)) best = {rows, cols}, cheapest = cost;
    }
  return best;
}

template <int M, int N, int K, class A_, class B_, class Start, class Epilogue>
FN void product(A_ A, B_ B, Start start, Epilogue epilogue) {
  constexpr int columns = pad(N) / NL;
  constexpr Shape shape = tile_for(M, columns, K);
  constexpr int tm = shape.rows, tn = shape.cols, down = cdiv(M, tm), across = cdiv(columns, tn);
  EACH(t, down * across) {
    int m1 = BEGIN(t % down, tm), n1 = BEGIN(t / down, tn), m0 = FIRST(m1, tm, M), n0 = FIRST(n1, tn, columns);
    auto own = [&](int m, int n) { return OWNS(m0, m1, m, tm, M) && OWNS(n0, n1, n, tn, columns); };
    v sum[tm][tn];
    UNROLL for (int m = 0; m < tm; m++)
      UNROLL for (int n = 0; n < tn; n++)
        sum[m][n] = own(m, n) ? start(PLACE(m0, m, tm, M), PLACE(n0, n, tn, columns) * NL) : all<v>(0);
    for (int k = 0; k < K; k++) {
      v b[tn];
      UNROLL for (int n = 0; n < tn; n++) b[n] = hold(B(k, PLACE(n0, n, tn, columns) * NL));
      UNROLL for (int m = 0; m < tm; m++) {
        v a = hold(A(PLACE(m0, m, tm, M), k));
        UNROLL for (int n = 0; n < tn; n++) sum[m][n] = fma_(a, b[n], sum[m][n]);
      }
    }
    UNROLL for (int m = 0; m < tm; m++)
      UNROLL for (int n = 0; n < tn; n++)
        if (own(m, n)) epilogue(PLACE(m0, m, tm, M), PLACE(n0, n, tn, columns) * NL, sum[m][n]);
  }
  BARRIER
}
FN v zero(int, int) { return all<v>(0); }

// ---- forward: net = below @ weight + bias, out = value(net) ----

template <int l>
FN v below_of(const Work &k, int first, int b, int i) {  // what goes into layer l
  constexpr int Ip = line(WIDTH[l]);
  if constexpr (l > 0) return get((DROPOUT >= 0 ? k.m.belows : k.m.outs) + outs_of(l - 1), b * Ip + i);
  else if constexpr (GATHER) return get(k.m.x, b * Ip + i);
  else return all<v>(inputs_of(k, first + b)[i]);
}

template <int l, int rows>
FN void dropout(const Work &k, int first);

template <int l, int rows, bool training = true>
FN void forward(const Work &k, int first) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Op = line(O);
  const s *weight = k.m.row + weight_of(l), *bias = k.m.row + bias_of(l);
  s *nets = k.m.nets + outs_of(l), *outs = k.m.outs + outs_of(l);
  product<rows, O, I>(
      [&](int b, int i) { return below_of<l>(k, first, b, i); },
      [&](int i, int o) { return read(weight, i * Op + o); }, zero,
      [&](int b, int o, v net) {
        if (BIAS != NONE) net = net + (BIAS == NEURON ? read(bias, o) : get(bias, 0));
        if (KEEP_NETS) write(nets, b * Op + o, net);
        write(outs, b * Op + o, value<l>(net));
      });
  if constexpr (l + 1 < L) {
    if constexpr (DROPOUT >= 0 && training) dropout<l, rows>(k, first);
    forward<l + 1, rows, training>(k, first);
  }
}

// Unit o of slot b takes word b O + o of the sequence at (step, layer l, DROPOUT): kept, times 1 / (1 - p), if the word
// is p 2^32 or more. Four words come from one counter; a lane is a network, or a counter of one network.
template <int l, int rows>
FN void dropout(const Work &k, int first) {
  constexpr int O = WIDTH[l + 1], Op = line(O);
  s *outs = k.m.outs + outs_of(l), *belows = k.m.belows + outs_of(l), *masks = k.m.masks + outs_of(l);
  const Group &g = *k.g;
  int begin = first * O, end = (first + rows) * O, quads = (end + 3) / 4 - begin / 4;
  EACH(item, WIDE ? cdiv(quads, VECTOR) : quads) {
    for (int part = 0; part < PARTS; part++) {
      uints index = all<uints>((uint32_t)(begin / 4 + item * (WIDE ? VECTOR : 1))), id, step;
      if (WIDE) {
        for (int j = 0; j < VECTOR; j++) ((uint32_t *)&index)[j] += j;
        id = all<uints>(g.id[0]), step = all<uints>(g.step[0]);
      } else {
        id = load<uints>(g.id + part * VECTOR), step = load<uints>(g.step + part * VECTOR);
      }
      auto four = philox<uints>(index, step, all<uints>(l), all<uints>(DROPOUT_STREAM), all<uints>(k.job->seed), id);
      for (int j = 0; j < VECTOR; j++)
        for (int q = 0; q < 4; q++) {
          int n = WIDE ? 0 : part * VECTOR + j, at = 4 * (begin / 4 + (WIDE ? item * VECTOR + j : item)) + q;
          if (at < begin || at >= end) continue;
          double chance = g.hyper[most(DROPOUT, 0)][n];
          double threshold = (chance * 4294967296.0 + 4503599627370496.0) - 4503599627370496.0;  // rounded
          bool kept = ((const uint32_t *)&four.word[q])[j] >= threshold;
          real factor = kept ? (real)(1 / (1 - chance)) : 0;
          int place = ((at - begin) / O * Op + at % O) * (WIDE ? 1 : NETWORKS) + n;
          ((real *)masks)[place] = factor;
          ((real *)belows)[place] = ((real *)outs)[place] * factor;
        }
    }
  }
  BARRIER
}

// ---- loss and the delta of the output layer; lanes are networks, or samples of one network ----

constexpr double SCALE = LOSS_SUM ? 1.0 : 1.0 / OUTPUTS;

template <class F>
FN v lanes_by(F f) {
  v x;
  for (int j = 0; j < (int)(sizeof(v) / sizeof(real)); j++) ((real *)&x)[j] = f(j);
  return x;
}

// How much each sample of the batch counts: weight / sum of weights, where classes have weights times those.
FN void weigh(const Work &k) {
  one total = nought();
  if constexpr (WEIGHTED) {
    EACH(b, BATCH) {
      for (int n = 0; n < NETWORKS; n++) {
        real weight = weight_of_sample(k, b, n);
        if (CLASS_WEIGHT) weight *= ((const real *)k.m.class_weight)[(int)target_of(k, b, n, 0) * NETWORKS + n];
        ((real *)k.m.share)[b * NETWORKS + n] = weight;
      }
    }
    BARRIER
    for (int b = 0; b < BATCH; b++) total = total + k.m.share[b];
    one scale = real(SCALE) / where_(eq_(total, nought()), all<one>(1), total);
    BARRIER
    EACH(b, BATCH) {
      one weight = k.m.share[b];
      if (CLASS_WEIGHT)
        for (int n = 0; n < NETWORKS; n++) ((real *)&weight)[n] = weight_of_sample(k, b, n);
      k.m.share[b] = weight * scale;
    }
    BARRIER
  }
}

template <int rows>
FN void loss_and_delta(const Work &k, int first) {
  constexpr int Op = line(OUTPUTS), PER = WIDE ? VECTOR : 1;  // samples of an item
  const s *outs = k.m.outs + outs_of(L - 1), *nets = k.m.nets + outs_of(L - 1);
  s *delta = k.m.delta;
  auto hyper = [&](int h) { return spread(k.g->typed[h]); };
  EACH(item, cdiv(rows, PER)) {
    const int b = item * PER;
    auto sample_in = [&](int j) { return least(b + j, rows - 1); };
    auto pick = [&](const s *from, int o) {
      if constexpr (WIDE) return lanes_by([&](int j) { return from[sample_in(j) * Op + o]; });
      else return from[b * Op + o];
    };
    auto put = [&](int o, v x) {
      if constexpr (WIDE) {
        for (int j = 0; j < VECTOR; j++)
          if (b + j < rows) ((real *)delta)[(b + j) * Op + o] = ((const real *)&x)[j];
      } else write(delta, b * Op + o, x);
    };
    auto target = [&](int o) {
      if constexpr (WIDE) return lanes_by([&](int j) { return target_of(k, first + sample_in(j), 0, o); });
      else if constexpr (GATHER) return k.m.y[b * TARGETS + o];
      else return all<v>(target_of(k, first + b, 0, o));
    };
    v share = all<v>(real(SCALE / BATCH)), error = all<v>(0);
    if constexpr (WEIGHTED && WIDE) share = lanes_by([&](int j) { return k.m.share[first + sample_in(j)]; });
    else if constexpr (WEIGHTED) share = get(k.m.share, first + b);
    if constexpr (CLASSES) {
      v top = pick(outs, 0), total = all<v>(0), own = all<v>(0), mine = target(0);
      for (int o = 1; o < OUTPUTS; o++) top = max_(top, pick(outs, o));
      for (int o = 0; o < OUTPUTS; o++) {
        v shifted = pick(outs, o) - top, power = exp_(shifted);
        total = total + power;
        own = where_(eq_(mine, all<v>(o)), shifted, own);
        put(o, power);
      }
      v log_total = log_(total), chance = real(1) / total;
      if constexpr (LABEL_SMOOTHING < 0 && !CLASS_WEIGHT) {
        error = log_total - own;
        for (int o = 0; o < OUTPUTS; o++) put(o, (pick(delta, o) * chance - eq_(mine, all<v>(o))) * share);
      } else {
        v smoothing = LABEL_SMOOTHING >= 0 ? hyper(LABEL_SMOOTHING) : all<v>(0), shares = all<v>(0);
        auto part = [&](int o) {
          v hit = eq_(mine, all<v>(o)), each = (real(1) - smoothing) * hit + smoothing / real(OUTPUTS);
          return CLASS_WEIGHT ? each * get(k.m.class_weight, o) : each;
        };
        for (int o = 0; o < OUTPUTS; o++) {
          error = error + part(o) * (log_total - (pick(outs, o) - top));
          shares = shares + part(o);
        }
        for (int o = 0; o < OUTPUTS; o++) put(o, (shares * (pick(delta, o) * chance) - part(o)) * share);
      }
    } else {
      for (int o = 0; o < OUTPUTS; o++) {
        v out = pick(outs, o), wanted = target(o);
        error = error + loss_value(out, wanted, hyper);
        v slope_here = loss_slope(out, wanted, hyper) * share;
        if constexpr (!OUTPUT_IDENTITY) slope_here = slope_here * slope<L - 1>(KEEP_NETS ? pick(nets, o) : out, out);
        put(o, slope_here);
      }
    }
    error = error * share;
    if constexpr (WIDE) {
      for (int j = 0; j < VECTOR; j++)
        if (b + j < rows) ((real *)k.m.error)[first + b + j] = ((const real *)&error)[j];
    } else write(k.m.error, first + b, error);
  }
  BARRIER
}

// ---- update: what a gradient becomes; at is a place in a row ----

FN v limited(const Work &k, v grad) {
  if constexpr (CLIP_VALUE >= 0) {
    v limit = spread(k.g->typed[least(CLIP_VALUE, HYPERS)]);
    grad = at_least_(at_most_(grad, limit), -limit);
  }
  return grad;
}
FN v penalised(const Work &k, v grad, v weight) {
  if constexpr (L2 >= 0) grad = fma_(spread(k.g->typed[most(L2, 0)]), weight, grad);
  if constexpr (L1 >= 0) grad = fma_(spread(k.g->typed[most(L1, 0)]), sign_(weight), grad);
  return grad;
}
FN void change(const Work &k, int at, v grad) {
  v param = read(k.m.row, at), slots[SLOTS + 1];
  for (int slot = 0; slot < SLOTS; slot++) slots[slot] = read(NUMBER(k.m, 1 + slot, at));
  update(param, grad, slots, [&](int r) { return spread(k.g->rate[r]); });
  write(k.m.row, at, param);
  for (int slot = 0; slot < SLOTS; slot++) write(NUMBER(k.m, 1 + slot, at), slots[slot]);
}
// The whole gradient of an element is known: change it, or wait for the norm of all.
template <bool weight>
FN void finish(const Work &k, int at, v grad) {
  if constexpr (weight) grad = penalised(k, grad, read(k.m.row, at));
  grad = limited(k, grad);
  if constexpr (CLIP_NORM >= 0) write(k.m.grad, at, grad);
  else change(k, at, grad);
}

// ---- backward: delta = (delta above @ weight^T) * slope, grad_weight = below^T @ delta, grad_bias = sum of delta ----

template <int l, int rows, bool last>
FN void gradient(const Work &k, int first, const s *delta) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Op = line(O), W = weight_of(l), at_bias = bias_of(l);
  s *grad = k.m.grad, *partial = CHUNKED && BIAS == LAYER ? k.m.bias_sums + l * widest() : k.m.sums;
  product<I, O, rows>(
      [&](int i, int b) { return below_of<l>(k, first, b, i); }, [&](int b, int o) { return read(delta, b * Op + o); },
      [&](int i, int o) { return CHUNKED ? read(grad, W + i * Op + o) : all<v>(0); },
      [&](int i, int o, v sum) {
        if constexpr (last) finish<true>(k, W + i * Op + o, sum);
        else write(grad, W + i * Op + o, sum);
      });
  if constexpr (BIAS == NONE || !TRAIN_BIAS) return;
  product<1, O, rows>(
      [&](int, int) { return all<v>(1); }, [&](int b, int o) { return read(delta, b * Op + o); },
      [&](int, int o) { return CHUNKED ? read(BIAS == NEURON ? grad + at_bias : partial, o) : all<v>(0); },
      [&](int, int o, v sum) {
        if constexpr (BIAS == LAYER) write(partial, o, sum);
        else if constexpr (last) finish<false>(k, at_bias + o, sum);
        else write(grad, at_bias + o, sum);
      });
  if constexpr (BIAS == LAYER && last) {
    EACH(item, 1) {
      one sum = nought();
      for (int o = 0; o < O; o++) sum = sum + partial[o];
      finish<false>(k, at_bias, as_v(sum));
    }
    BARRIER
  }
}

// A weight (I, O) turned into (O, I), square by square.
template <int I, int O>
FN void turn([[maybe_unused]] s *turned, [[maybe_unused]] const s *weight) {
#if WIDE
  constexpr int down = pad(I) / NL, across = pad(O) / NL;
  EACH(square, down * across) {
    const int i = square % down * NL, o = square / down * NL;
    v r[NL];
    UNROLL for (int j = 0; j < NL; j++) r[j] = i + j < I ? read(weight, (i + j) * line(O) + o) : all<v>(0);
    transpose(r);
    UNROLL for (int j = 0; j < NL; j++)
      if (o + j < O) write(turned, (o + j) * line(I) + i, r[j]);
  }
  BARRIER
#endif
}

template <int l, int rows, bool last>
FN void backward(const Work &k, int first, s *delta, s *below) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Ip = line(I), Op = line(O);
  if constexpr (LAYERWISE) gradient<l, rows, last>(k, first, delta);
  if constexpr (l > 0) {
    const s *weight = k.m.row + weight_of(l);
    const int out = outs_of(l - 1);
    s *turned = k.m.turned;
    if constexpr (NL > 1) turn<I, O>(turned, weight);
    product<rows, I, O>(
        [&](int b, int o) { return get(delta, b * Op + o); },
        [&](int o, int i) { return NL > 1 ? read(turned, o * Ip + i) : get(weight, i * Op + o); }, zero,
        [&](int b, int i, v sum) {
          int at = out + b * Ip + i;
          if (DROPOUT >= 0) sum = sum * read(k.m.masks, at);
          v own = read(k.m.outs, at);
          write(below, b * Ip + i, sum * slope<l - 1>(KEEP_NETS ? read(k.m.nets, at) : own, own));
        });
  }
  if constexpr (!LAYERWISE) gradient<l, rows, last>(k, first, delta);
  if constexpr (l > 0) backward<l - 1, rows, last>(k, first, below, delta);
}

// ---- a step ----

// The sum of f(place in a row) over weights, and over biases if asked for: down the columns, across, layer by layer.
template <int l = 0, class F>
FN one sum_of(const Work &k, bool biases, F f) {
  constexpr int I = WIDTH[l], O = WIDTH[l + 1], Op = line(O), W = weight_of(l), size = bias_size(l);
  EACH(item, pad(O) / NL) {
    v sum = all<v>(0);
    for (int i = 0; i < I; i++) sum = sum + f(W + i * Op + item * NL);
    if (biases && size == O) sum = sum + f(bias_of(l) + item * NL);
    write(k.m.sums, item * NL, sum);
  }
  BARRIER
  one total = nought();
  for (int o = 0; o < O; o++) total = total + k.m.sums[o];
  BARRIER
  if (biases && size == 1 && O > 1) {
    v bias = f(bias_of(l));
    total = total + *(const one *)&bias;
  }
  if constexpr (l + 1 < L) total = total + sum_of<l + 1>(k, biases, f);
  return total;
}

FN void clip_norm(const Work &k) {
  if constexpr (CLIP_NORM >= 0) {
    one square = sum_of(k, TRAIN_BIAS, [&](int at) { v grad = read(k.m.grad, at); return grad * grad; });
    v factor = at_most_(spread(k.g->typed[CLIP_NORM]) / (sqrt_(as_v(square)) + real(1e-6)), all<v>(1));
    EACH(item, P / NL) {
      if (TRAIN_BIAS || is_weight(item * NL)) change(k, item * NL, read(k.m.grad, item * NL) * factor);
    }
    BARRIER
  }
}

FN one penalty(const Work &k) {
  one total = nought();
  if constexpr (L1 >= 0)
    total = total + own(k.g->typed[most(L1, 0)]) * sum_of(k, false, [&](int at) { return abs_(read(k.m.row, at)); });
  if constexpr (L2 >= 0)
    total = total + real(0.5) * own(k.g->typed[most(L2, 0)]) * sum_of(k, false, [&](int at) {
              v weight = read(k.m.row, at);
              return weight * weight;
            });
  return total;
}

// What depends on network and step alone, in double: the scheduled rate, and what the optimizer prepares. For networks
// that are alike in all of this, one stands for all.
constexpr int DOUBLES = NETWORKS == 1 ? 1 : least(NETWORKS, most(1, VECTOR * (int)sizeof(real) / 8));
template <class V, class Keep>
FN void rates_of(Group &g, int n, Keep keep) {
  V hyper[HYPERS + 1], columns[COLUMNS + 1], rate[RATES + 1];
  for (int h = 0; h < HYPERS; h++) hyper[h] = load<V>(g.hyper[h] + n);
  for (int c = 0; c < COLUMNS; c++) columns[c] = load<V>(g.columns[c] + n);
  prepare(hyper, columns, load<V>(g.now + n), load<V>(g.end + n), rate);
  for (int c = 0; c < COLUMNS; c++) store<V>(g.columns[c] + n, columns[c]);
  for (int r = 0; r < RATES; r++) keep(r, rate[r]);
  store<V>(g.now + n, load<V>(g.now + n) + 1);
}
FN void rates(const Work &k) {
  Group &g = *k.g;
  if (NETWORKS > 1 && g.alike) {
    rates_of<double>(g, 0, [&](int r, double rate) {
      for (int n = 0; n < NETWORKS; n++) g.rate[r][n] = (real)rate;
    });
  } else {
    typedef vec<double, DOUBLES> V;
    EACH(item, NETWORKS / DOUBLES) {
      rates_of<V>(g, item * DOUBLES, [&](int r, V rate) {
        for (int j = 0; j < DOUBLES; j++) g.rate[r][item * DOUBLES + j] = (real)((const double *)&rate)[j];
      });
    }
  }
  BARRIER
}
FN bool alike(const Group &g) {
  bool same = true;
  for (int n = 1; n < NETWORKS; n++) {
    for (int h = 0; h < HYPERS; h++) same &= g.hyper[h][n] == g.hyper[h][0];
    for (int c = 0; c < COLUMNS; c++) same &= g.columns[c][n] == g.columns[c][0];
    same &= (g.now[n] == g.now[0]) & (g.end[n] == g.end[0]);
  }
  return same;
}

template <int rows, bool last>
FN void chunk(const Work &k, int first) {
  gather<rows>(k, first);
  forward<0, rows>(k, first);
  loss_and_delta<rows>(k, first);
  backward<L - 1, rows, last>(k, first, k.m.delta, k.m.below);
}

// One step of every network of the group -> its loss, before the update.
FN one step(const Work &k) {
  constexpr int LAST = BATCH % CHUNK ? BATCH % CHUNK : CHUNK;
  weigh(k);
  one loss = nought(), more = penalty(k);
  if constexpr (CHUNKED) {
    EACH(at, P / NL) { write(k.m.grad, at * NL, all<v>(0)); }
    if constexpr (BIAS == LAYER) EACH(at, L * widest() / NL) { write(k.m.bias_sums, at * NL, all<v>(0)); }
    BARRIER
    for (int first = 0; first + LAST < BATCH; first += CHUNK) chunk<CHUNK, false>(k, first);
  }
  chunk<LAST, true>(k, BATCH - LAST);
  clip_norm(k);
  for (int b = 0; b < BATCH; b++) loss = loss + k.m.error[b];
  BARRIER
  return loss + more;
}

// ---- a call: `who` into the group, steps, and back ----

// The rows of the networks `who` into the group, and back where `keep` says so; in Job's rows nothing is padded.
FN void fetch(const Work &k, Who who) {
  for (int slot = 0; slot <= SLOTS; slot++)
    copy_in(numbers_of(k.m, slot), slot ? k.job->slots[slot - 1] : k.job->params, who);
  BARRIER
}
FN void give_back(const Work &k, Who who, const bool *keep) {
  for (int slot = 0; slot <= SLOTS; slot++)
    copy_out(slot ? k.job->slots[slot - 1] : k.job->params, numbers_of(k.m, slot), who, keep);
}

FN void begin(const Work &k, Who who) {
  Group &g = *k.g;
  const Job &job = *k.job;
  EACH(n, NETWORKS) {
    int64_t at = who[n];
    for (int h = 0; h < HYPERS; h++) g.typed[h][n] = (real)(g.hyper[h][n] = job.hyper[h][at]);
    for (int c = 0; c < COLUMNS; c++) g.columns[c][n] = job.columns[c][at];
    g.now[n] = TIMED ? (double)job.step[at] : 0;
    g.end[n] = TIMED ? (double)job.end[at] : 0;
    if (OWN || DROPOUT >= 0) g.id[n] = (uint32_t)job.ids[at];
    if (DROPOUT >= 0) g.step[n] = (uint32_t)job.step[at];
    if (OWN || SAMPLE_WEIGHT == 2) {
      g.base[n] = job.position[at] * job.samples;
      g.rows[n] = job.position[at] * job.longest;
    }
    if (CLASS_WEIGHT)
      for (int o = 0; o < OUTPUTS; o++)
        ((real *)k.m.class_weight)[o * NETWORKS + n] = (real)job.class_weight[at * OUTPUTS + o];
  }
  BARRIER
  if (NETWORKS > 1) g.alike = alike(g);
}

// Train the networks `who` (NETWORKS); `left` of them are steps to take, in descending order, 0 for a lane without a
// network. A network that is through is given back, and its lane computes on for nobody. Rows of networks with a number
// that is not finite stay as they are. One look at the end finds such numbers, where they stay in a row once they are
// there (ABSORBING); with job.check every step looks for them, and no row changes.
FN void train(Work k, Who who, const int64_t *left, const int32_t *table) {
  const Job &job = *k.job;
  Group &g = *k.g;
  Clock clock;
  int64_t done = 0, faulty[NETWORKS];
  one loss = nought(), total = nought(), fault = nought();
  begin(k, who);
  fetch(k, who);
  for (int n = 0; n < NETWORKS; n++) {
    faulty[n] = -1;
    const int64_t at = who[n];
    if (OWN && n < INDEXED) set_clock(k, clock, n, ROWS ? job.sizes[job.position[at]] : job.samples, job.step[at]);
  }
  if (!MOVING) rates(k);
  for (int n = 0; n < NETWORKS; n++) ((real *)&total)[n] = job.total[who[n]];
  auto hand_over = [&](int n) {
    job.step[who[n]] += done;
    job.loss[who[n]] = ((real *)&loss)[n];
    job.total[who[n]] = ((real *)&total)[n];
    for (int c = 0; c < COLUMNS; c++) job.columns[c][who[n]] = g.columns[c][NETWORKS > 1 && g.alike ? 0 : n];
  };
  for (int waiting = NETWORKS; left[0] > done;) {
    while (left[waiting - 1] <= done) waiting--;
    int64_t next = CHECK(k, job) || !ABSORBING ? done + 1 : left[waiting - 1];
    for (; done < next; done++) {
      k.index = OWN ? &g.index[0][0] : table + done * BATCH;
      draw(k, clock);
      if (MOVING) rates(k);
      loss = step(k);
      total = total + loss;
      fault = fault + loss * real(0);
      if (DROPOUT >= 0) {
        EACH(n, NETWORKS) { g.step[n]++; }
        BARRIER
      }
    }
    one sound = fault;
    for (int slot = 0; slot <= SLOTS; slot++)
      sound = sound + sum_of(k, true, [&](int at) { return read(NUMBER(k.m, slot, at)) * real(0); });
    bool keep[NETWORKS], any_kept = false, well = left[0] == done && left[NETWORKS - 1] == done && !CHECK(k, job);
    for (int n = 0; n < NETWORKS; n++) well &= (((real *)&sound)[n] == 0) & (faulty[n] < 0);
    if (well) {  // all, and all are through
      EACH(n, NETWORKS) { hand_over(n); }
      for (int n = 0; n < NETWORKS; n++) keep[n] = true;
      return give_back(k, who, keep);
    }
    for (int n = 0; n < NETWORKS; n++) {
      bool finite = ((real *)&sound)[n] == 0, through = left[n] == done;
      if (!finite && faulty[n] < 0) faulty[n] = done;
      keep[n] = through && faulty[n] < 0 && !CHECK(k, job);
      any_kept = any_kept || keep[n];
      EACH(item, through) {
        if (CHECK(k, job)) job.taken[who[n]] = done;
        if (faulty[n] >= 0) {
          job.taken[who[n]] = -faulty[n];
          count_one(k.faults);
        }
        if (keep[n]) hand_over(n);
      }
    }
    if (any_kept) give_back(k, who, keep);
  }
}

// The outs of the networks `who` for all samples, without dropout; `there` says which of the lanes have a network.
FN void predict(Work k, Who who, const bool *there) {
  const Job &job = *k.job;
  constexpr int Op = line(OUTPUTS);
  for (int n = 0; n < NETWORKS; n++) k.g->base[n] = who[n] * job.samples;
  fetch(k, who);
  k.index = &k.g->index[0][0];
  for (int64_t first = 0; first < job.samples; first += CHUNK) {
    const int rows = job.samples - first < CHUNK ? (int)(job.samples - first) : CHUNK;
    for (int b = 0; b < CHUNK; b++)
      for (int n = 0; n < INDEXED; n++) k.g->index[b][n] = (int32_t)first + least(b, rows - 1);
    gather<CHUNK, false>(k, 0);
    forward<0, CHUNK, false>(k, 0);
    const real *outs = (const real *)(k.m.outs + outs_of(L - 1));
    for (int n = 0; n < NETWORKS; n++)
      for (int b = 0; b < rows && there[n]; b++)
        for (int o = 0; o < OUTPUTS; o++)
          job.outs[((int64_t)who[n] * job.samples + first + b) * OUTPUTS + o] = outs[(b * Op + o) * NETWORKS + n];
  }
}
