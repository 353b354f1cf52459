// A call that trains: networks `who` into the group, steps, and back.
#pragma once
#include "network.h"

// The rows of a group back where `keep` says so.
FN void give_back(const Work &k, Who who, const bool *keep) {
  for (int slot = 0; slot <= SLOTS; slot++)
    copy_out(slot ? k.job->slots[slot - 1] : k.job->params, number_of(k.m, slot, 0), who, keep);
}

FN void begin(const Work &k, Who who) {
  Group &g = *k.g;
  const Job &job = *k.job;
  each_network(who, [&](int n, int64_t at) {
    for (int h = 0; h < HYPERS; h++) g.typed[h][n] = (real)(g.hyper[h][n] = job.hyper[h][at]);
    for (int c = 0; c < COLUMNS; c++) g.columns[c][n] = job.columns[c][at];
    g.now[n] = TIMED ? (double)job.step[at] : 0;
    g.end[n] = TIMED ? (double)job.end[at] : 0;
    if (OWN || DROPOUT >= 0) g.id[n] = (uint32_t)job.ids[at];
    if (DROPOUT >= 0) g.step[n] = (uint32_t)job.step[at];
    begin_data(k, n, at);
  });
  BARRIER
  if (NETWORKS > 1) {
    EACH(item, 1) { g.alike = alike(g); }
  }
}

// How far a group has come.
struct Course {
  int64_t done;              // steps of this call
  one loss, fault;           // of the last step; 0 while every loss is finite
  double total[NETWORKS];    // Job's and all losses since
  int64_t faulty[NETWORKS];  // steps after which a number was not finite; -1
};

// In float64, to which a single loss is not too small after any number of steps.
FN void add_loss(Course &c) {
  typedef vec<double, DOUBLES> V;
  for (int n = 0; n < NETWORKS; n += DOUBLES) {
    const auto loss = load<vec<real, DOUBLES>>((const real *)&c.loss + n);
    store<V>(c.total + n, load<V>(c.total + n) + convert_<V>(loss));
  }
}

// One step of every network. table: the samples of a call, where all networks take the same.
FN void next_step(Work &k, Clock &clock, Course &c, const int32_t *table) {
  k.index = OWN ? &k.g->index[0][0] : table + c.done * BATCH;
  draw(k, clock);
  if (MOVING) rates(k);
  c.loss = step(k);
  add_loss(c);
  c.fault = c.fault + c.loss * real(0);
  c.done++;
  if (DROPOUT >= 0) {
    EACH(n, NETWORKS) { k.g->step[n]++; }
    BARRIER
  }
}

// 0 for a network whose losses and numbers are finite.
FN one unsound(const Work &k, const Course &c) {
  one found = nought();
  for (int slot = 0; slot <= SLOTS; slot++)
    found = found + sum_of(k, true, [&](int at) { return read(number_of(k.m, slot, at), 0) * real(0); });
  return found + c.fault;
}

// What Job keeps of a network besides its rows.
FN void hand_over(const Work &k, const Course &c, int n, int64_t at) {
  const Job &job = *k.job;
  job.step[at] += c.done;
  job.loss[at] = lane(c.loss, n);
  job.total[at] = c.total[NETWORKS == 1 ? 0 : n];  // a number that varies would put a GPU's Course into local memory
  for (int i = 0; i < COLUMNS; i++) job.columns[i][at] = k.g->columns[i][NETWORKS > 1 && k.g->alike ? 0 : n];
}

// Look at every network, and give back those that are through, but for the faulty: their rows stay as they are, and so
// do all with `check`. A lane that is through computes on for nobody.
FN void settle(const Work &k, Course &c, Who who, const int64_t *left) {
  const Job &job = *k.job;
  const one found = unsound(k, c);
  bool keep[NETWORKS], any_kept = false, through = left[0] == c.done && left[NETWORKS - 1] == c.done;
  int64_t known = -1;  // below 0 where nobody is known to be faulty
  int wrong = 0;
  for (int n = 0; n < NETWORKS; n++) known &= c.faulty[n];
  for (int n = 0; n < NETWORKS; n++) wrong |= lane(found, n) != 0;
  if (through && known < 0 && !wrong && !k.check) {  // all are well and through
    each_network(who, [&](int n, int64_t at) { hand_over(k, c, n, at); });
    for (int n = 0; n < NETWORKS; n++) keep[n] = true;
    return give_back(k, who, keep);
  }
  for (int n = 0; n < NETWORKS; n++) {
    if (lane(found, n) != 0 && c.faulty[n] < 0) c.faulty[n] = c.done;
    through = left[n] == c.done;
    keep[n] = through && c.faulty[n] < 0 && !k.check;
    any_kept = any_kept || keep[n];
    EACH(item, through) {
      if (k.check) job.taken[who[n]] = c.done;
      if (c.faulty[n] >= 0) {
        job.taken[who[n]] = -c.faulty[n];
        count_one(k.faults);
      }
      if (keep[n]) hand_over(k, c, n, who[n]);
    }
  }
  if (any_kept) give_back(k, who, keep);
}

// Train the networks `who` (NETWORKS); `left` of them are steps to take, in descending order, 0 for a lane without a
// network. One look at the end finds numbers that are not finite, where they stay in a row once they are there
// (ABSORBING); with `check` every step looks for them.
FN void train(Work k, Who who, const int64_t *left, const int32_t *table) {
  const Job &job = *k.job;
  Clock clock;
  Course c = {0, nought(), nought(), {}, {}};
  begin(k, who);
  fetch(k, who);
  for (int n = 0; n < NETWORKS; n++) {
    c.faulty[n] = -1;
    if (OWN && n < INDEXED)
      set_clock(k, clock, n, ROWS ? job.sizes[job.position[who[n]]] : job.samples, job.step[who[n]]);
  }
  if (!MOVING) rates(k);
  for (int n = 0; n < NETWORKS; n++) c.total[NETWORKS == 1 ? 0 : n] = job.total[who[n]];
  for (int waiting = NETWORKS; left[0] > c.done;) {
    while (left[waiting - 1] <= c.done) waiting--;
    const int64_t next = k.check || !ABSORBING ? c.done + 1 : left[waiting - 1];
    while (c.done < next) next_step(k, clock, c, table);
    settle(k, c, who, left);
  }
}
