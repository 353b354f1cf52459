"""Decisions at the end of a round: the plateau schedule, patience, a target loss, the best row. They depend only on a
network's own figures, so it ends as it would alone.

The names are Keras's (EarlyStopping), per network, and `tol` scikit-learn's, whose n_iter_no_change waits one
evaluation longer. A figure that is a little better than the best becomes the best with tol, and does not with
min_delta. Patience and the best row go by the loss, or by the metric (Recipe.rated), of which more is better.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .settings.recipe import LOSS, METRIC, MONITORED, RATED, TRACKED
from .state import CONVERGED, FINISHED, RUNNING, STOPPED, TrainState
from .system.arrays import Array

PART = 1 << 14  # rows copied at once
WORST = TRACKED | RATED  # what a figure that is not finite counts as


def decide(state: TrainState, figures: Sequence[Array], due: Array, whole: Array) -> Array:
    """Apply an evaluation's losses (N,) and, of validation data, metrics (N,) to the running networks that are `due`
    (N,), in place. -> (N,) bool: those whose row is their best so far.

    whole (N,): whether a network's round is complete. Training may end within a round, where a longer training has no
    evaluation: such an end changes nothing that more epochs would start from. A non-finite figure is never better."""
    hyper, status, loss = state.hyper, state.status.numpy(), figures[0]
    due = due & (status == RUNNING)
    ends, better = due & whole, np.zeros_like(due)
    if state.recipe.timetable.events:
        plateau(state, torch.from_numpy(loss), torch.from_numpy(ends))
    if state.recipe.tracks:
        for name, now in zip(_remembered(state), figures):
            np.copyto(_last(state, name), np.where(np.isfinite(now), now, WORST[f"last_{name}"]), where=due)
        better = _track(state, ends)
    if "patience" in hyper:
        status[ends & (_numbers(state.memory["waited"]) >= _numbers(hyper["patience"]))] = STOPPED
    if "target_loss" in hyper:
        status[ends & (loss <= _numbers(hyper["target_loss"]))] = CONVERGED
    return better


def _numbers(column: Tensor) -> Array:
    """(N,): a view of a column (N, 1). NumPy takes a third of torch's time for operations on a few numbers."""
    return column.numpy()[:, 0]


def _remembered(state: TrainState) -> Sequence[str]:
    """The figures that the best of tracked networks is remembered by."""
    return MONITORED if state.recipe.rated else (LOSS,)


def _last(state: TrainState, figure: str) -> Array:
    return _numbers(state.memory[f"last_{figure}"])


def _best(state: TrainState, figure: str) -> Array:
    return _numbers(state.memory[f"best_{figure}"])


def plateau(state: TrainState, loss: Tensor, at: Tensor) -> None:
    """Apply torch's ReduceLROnPlateau (mode min, threshold_mode rel, eps 0) with losses (N,) to the networks `at`
    (N,), in place."""
    hyper, memory = state.hyper, state.memory
    now = loss[:, None].double()
    better = now < memory["best"] * (1 - hyper["plateau_threshold"])
    better |= memory["best"].isinf() & now.isfinite()
    best = torch.where(better, now, memory["best"])
    bad = torch.where(better, torch.zeros_like(now), memory["bad"] + 1)
    cooling = torch.clamp(memory["cooling"] - 1, min=0)
    bad = torch.where(memory["cooling"] > 0, torch.zeros_like(bad), bad)
    enough = bad > hyper["plateau_patience"]
    fresh = {
        "scale": torch.where(enough, memory["scale"] * hyper["plateau_factor"], memory["scale"]),
        "best": best,
        "bad": torch.where(enough, torch.zeros_like(bad), bad),
        "cooling": torch.where(enough, hyper["plateau_cooldown"], cooling),
    }
    for name, value in fresh.items():
        memory[name].copy_(torch.where(at[:, None], value, memory[name]))


def _track(state: TrainState, at: Array) -> Array:
    """Compare the last figures of the networks `at` (N,) with their best. -> (N,) bool: which are better."""
    better = enough = at & _better(state)
    if "tol" in state.hyper:
        last, best = _costs(state)
        enough = at & np.isfinite(last) & (last <= best - _numbers(state.hyper["tol"]))
    for name in _remembered(state):
        np.copyto(_best(state, name), _last(state, name), where=better)
    np.copyto(_best(state, "step"), state.step.numpy(), where=better)
    waited = _numbers(state.memory["waited"])
    waited += at & np.isfinite(_last(state, METRIC)) if state.recipe.rated else at  # R2 of equal targets is unknown
    waited[enough] = 0
    return better


def _costs(state: TrainState) -> tuple[Array, Array]:
    """(N,) each: the last and the best of the figure that decides, of which less is better."""
    if state.recipe.rated:
        return -_last(state, METRIC), -_best(state, METRIC)
    return _last(state, LOSS), _best(state, LOSS)


def _better(state: TrainState) -> Array:
    """(N,): whether the last figure is better than the best by more than min_delta, or the first finite one."""
    last, best = _costs(state)
    least = _numbers(state.hyper["min_delta"]) if "min_delta" in state.hyper else 0.0
    return np.isfinite(last) & ((last < best - least) | np.isinf(best))


def _ended_better(state: TrainState) -> Tensor:
    """(N,) bool: the networks whose training ended within a round, with a better figure than any before."""
    return (state.status == FINISHED) & torch.from_numpy(_better(state))


def best(state: TrainState) -> dict[str, Tensor]:
    """(N,) each, of tracked networks at their best evaluation, by name: `step`, int64, or -1; `loss` and, if it is what
    decides, `metric`, or infinite numbers."""
    last, kept = _ended_better(state), {name: column[:, 0] for name, column in state.memory.items()}
    found = {"step": torch.where(last, state.step, kept["best_step"].long())}
    for figure in _remembered(state):
        found[figure] = torch.where(last, kept[f"last_{figure}"], kept[f"best_{figure}"])
    return found


def restored(state: TrainState) -> Tensor:
    """(N,) bool: the networks whose kept row is better than their present one, even where training ended within a
    round."""
    kept = state.memory["best_step"][:, 0]
    return (kept >= 0) & (kept < state.step) & ~_ended_better(state)


def keep(state: TrainState, better: Tensor) -> None:
    """Keep the present rows of the networks `better` (N,) as their best, in place."""
    for rows in better.nonzero().squeeze(1).split(PART):
        state.kept["best"].index_copy_(0, rows, state.population.params[rows])


def exchange(state: TrainState, some: Tensor) -> None:
    """Exchange present and kept rows of the networks `some` (N,), in place."""
    params, best = state.population.params, state.kept["best"]
    for rows in some.nonzero().squeeze(1).split(PART):
        present = params[rows]
        params.index_copy_(0, rows, best[rows])
        best.index_copy_(0, rows, present)


def restore(state: TrainState) -> None:
    """Exchange rows as the end of the training does, if best rows are kept, in place."""
    if state.kept:
        exchange(state, restored(state))
