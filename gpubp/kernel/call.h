// A call that trains a group of networks: load them, take their steps, store them.
#pragma once
#include "network.h"

FN void load_scalars(const Context &ctx, Networks networks) {
  Group &group = *ctx.group;
  const Job &job = *ctx.job;
  for_each_network(networks, [&](int n, int64_t at) {
    for (int h = 0; h < HYPERS; h++) group.hyper_real[h][n] = (real)(group.hyper[h][n] = job.hyper[h][at]);
    for (int s = 0; s < NETWORK_SLOTS; s++) group.network_slots[s][n] = job.network_slots[s][at];
    group.schedule_step[n] = COEFFICIENTS_USE_STEP ? (double)job.step[at] : 0;
    group.schedule_end[n] = COEFFICIENTS_USE_STEP ? (double)job.end[at] : 0;
    if (OWN_SAMPLES || HAS_DROPOUT) group.id[n] = (uint32_t)job.ids[at];
    if (HAS_DROPOUT) group.dropout_step[n] = (uint32_t)job.step[at];
    load_data(ctx, n, at);
  });
  BARRIER
  if (NETWORKS > 1) {
    PARALLEL_FOR(item, 1) { group.same_coefficients = have_same_coefficients(group); }
  }
}

// How far a group has come in this call.
struct Progress {
  int64_t steps;                     // taken
  per_network loss;                  // of the last step
  per_network fault;                 // 0 while every loss was finite, else NaN
  double total[NETWORKS];            // Job.total and all losses since
  int64_t diverged_after[NETWORKS];  // the first step after which a number was found not to be finite; -1 without one
};

// In float64, in which a loss does not vanish beside the sum of very many.
FN void add_loss(Progress &progress) {
  typedef vec<double, DOUBLE_LANES> V;
  for (int n = 0; n < NETWORKS; n += DOUBLE_LANES) {
    const auto loss = load<vec<real, DOUBLE_LANES>>((const real *)&progress.loss + n);
    store<V>(progress.total + n, load<V>(progress.total + n) + convert_<V>(loss));
  }
}

// One step of every network. table: the samples of all steps of the call, where all networks take the same; null on a
// GPU, where OWN_SAMPLES is 1.
FN void next_step(Context &ctx, Cursor &cursor, Progress &progress, const int32_t *table) {
  ctx.index = OWN_SAMPLES ? &ctx.group->index[0][0] : table + progress.steps * BATCH;
  draw(ctx, cursor);
  if (COEFFICIENTS_CHANGE) compute_coefficients(ctx);
  progress.loss = train_step(ctx);
  add_loss(progress);
  progress.fault = progress.fault + progress.loss * real(0);
  progress.steps++;
  if (HAS_DROPOUT) {
    GROUP_FOR(n, NETWORKS) { ctx.group->dropout_step[n]++; }
    BARRIER
  }
}

// 0 for a network whose losses, parameters and slots are all finite, else NaN.
FN per_network nonfinite(const Context &ctx, const Progress &progress) {
  per_network found = splat<per_network>(0);
  for (int array = 0; array <= SLOTS; array++)
    found = found + sum_over_params<true>(ctx, [&](auto at) {
      return read_at(param_or_slot(ctx.mem, array, 0), at) * real(0);
    });
  return found + progress.fault;
}

FN void store_params(const Context &ctx, Networks networks, const bool *keep) {  // and slots, of those with `keep`
  for (int array = 0; array <= SLOTS; array++)
    copy_out(array ? ctx.job->slots[array - 1] : ctx.job->params, param_or_slot(ctx.mem, array, 0), networks, keep);
}
FN void store_scalars(const Context &ctx, const Progress &progress, int n, int64_t at) {
  const Job &job = *ctx.job;
  job.step[at] += progress.steps;
  job.loss[at] = lane_of(progress.loss, n);
  job.total[at] = progress.total[NETWORKS == 1 ? 0 : n];  // [n] would put a GPU's Progress into local memory
  for (int s = 0; s < NETWORK_SLOTS; s++)
    job.network_slots[s][at] = ctx.group->network_slots[s][NETWORKS > 1 && ctx.group->same_coefficients ? 0 : n];
}

// Look for networks that diverged, and store those that have taken all their steps and did not diverge. A diverged
// network stays in Job as it was before the call, and then takes the steps before that one anew (engines/cpu.py,
// gpu.h); in a dry run all stay. The lane of a finished network goes on computing, and nothing reads it.
FN void store_finished(const Context &ctx, Progress &progress, Networks networks, const int64_t *steps) {
  const Job &job = *ctx.job;
  const per_network found = nonfinite(ctx, progress);
  bool finished = steps[0] == progress.steps && steps[NETWORKS - 1] == progress.steps;
  bool keep[NETWORKS], any_kept = false;
  int64_t none_before = -1;  // below 0 if no network diverged before
  int any_now = 0;
  for (int n = 0; n < NETWORKS; n++) none_before &= progress.diverged_after[n];
  for (int n = 0; n < NETWORKS; n++) any_now |= lane_of(found, n) != 0;
  if (finished && none_before < 0 && !any_now && !ctx.dry_run) {  // most often: all are finished, and none diverged
    for_each_network(networks, [&](int n, int64_t at) {
      if (BLOCK_OF_TEAM == 0) store_scalars(ctx, progress, n, at);
    });
    for (int n = 0; n < NETWORKS; n++) keep[n] = true;
    return store_params(ctx, networks, keep);
  }
  for (int n = 0; n < NETWORKS; n++) {
    if (lane_of(found, n) != 0 && progress.diverged_after[n] < 0) progress.diverged_after[n] = progress.steps;
    finished = steps[n] == progress.steps;
    keep[n] = finished && progress.diverged_after[n] < 0 && !ctx.dry_run;
    any_kept = any_kept || keep[n];
    PARALLEL_FOR(item, finished) {  // once, by one thread
      if (ctx.dry_run) job.taken[networks[n]] = progress.steps;
      if (progress.diverged_after[n] >= 0) {
        job.taken[networks[n]] = -progress.diverged_after[n];
#if !ON_GPU  // whose networks note it themselves (gpu.h)
        __atomic_add_fetch(ctx.diverged, 1, __ATOMIC_RELAXED);
#endif
      }
      if (keep[n]) store_scalars(ctx, progress, n, networks[n]);
    }
  }
  if (any_kept) store_params(ctx, networks, keep);
}

// Train a group. steps: how many each network takes, in descending order, 0 for a lane without a network. One look at
// the end finds numbers that are not finite, if they stay in a row once they are there (NONFINITE_STAYS); else, and
// in a dry run, every step looks for them.
FN void train(Context ctx, Networks networks, const int64_t *steps, const int32_t *table) {
  const Job &job = *ctx.job;
  Cursor cursor;
  Progress progress = {0, splat<per_network>(0), splat<per_network>(0), {}, {}};
  load_scalars(ctx, networks);
  load_params(ctx, networks);
  for (int n = 0; n < NETWORKS; n++) {
    progress.diverged_after[n] = -1;
    if (OWN_SAMPLES && n < ORDERS)
      set_cursor(ctx, cursor, n, SUBSETS ? job.sizes[job.position[networks[n]]] : job.samples, job.step[networks[n]]);
  }
  if (!COEFFICIENTS_CHANGE) compute_coefficients(ctx);
  for (int n = 0; n < NETWORKS; n++) progress.total[NETWORKS == 1 ? 0 : n] = job.total[networks[n]];
  for (int unfinished = NETWORKS; steps[0] > progress.steps;) {
    while (steps[unfinished - 1] <= progress.steps) unfinished--;
    const int64_t next = ctx.dry_run || !NONFINITE_STAYS ? progress.steps + 1 : steps[unfinished - 1];
    while (progress.steps < next) next_step(ctx, cursor, progress, table);
    store_finished(ctx, progress, networks, steps);
  }
}
