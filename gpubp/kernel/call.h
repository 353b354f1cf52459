// A call: networks `who` into the group, steps, and back.
#pragma once
#include "network.h"

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
