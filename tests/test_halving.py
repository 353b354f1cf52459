"""search/halving.py: the best go on, as many as the papers say, and are bit for bit what they are alone."""

import pickle
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import gpubp
from gpubp.errors import ConfigError
from gpubp.results.result import Result
from gpubp.results.saved import read_results
from gpubp.search import Hyperband, SuccessiveHalving
from gpubp.search.method import Method

from .helpers import alike, generator, needs_compiler, same_bits, samples
from .playing import machine
from .searches import LINE, ascending, rated, train

SHAPE = gpubp.NetworkSpec((3, 4), loss="cross_entropy")


def running(result: Result) -> list[int]:
    """How many networks go on after each round but the last."""
    return [each["statuses"]["running"] for each in result.history[:-1]]


@pytest.mark.parametrize("validated", [True, False])
def test_the_best_third_goes_on_at_each_rung_from_where_it_is(validated: bool) -> None:
    order = torch.randperm(81, generator=torch.Generator().manual_seed(1))
    rates = torch.tensor(ascending(81), dtype=torch.float64)[order]
    rows = rated(rates.tolist(), epochs=81, batch_size=8)  # so that a round's mean has a loss after a step
    result = train(rows, SuccessiveHalving(), held_out=LINE if validated else None)
    assert running(result) == [27] * 2 + [9] * 6 + [3] * 18 + [1] * 54
    by_rate = rates.argsort(descending=True)
    steps, rungs = (torch.tensor(result.table[name].to_pylist()) for name in ("steps", "rung"))
    assert (steps[by_rate] / 2).tolist() == [81] * 1 + [27] * 2 + [9] * 6 + [3] * 18 + [1] * 54
    assert rungs[by_rate].tolist() == [4] * 1 + [3] * 2 + [2] * 6 + [1] * 18 + [0] * 54
    assert result.statuses == {"running": 0, "finished": 1, "stopped": 80, "diverged": 0}
    assert result.table["stopped_step"].to_pylist().count(None) == 1
    assert result.network_steps == 2 * (81 + 2 * 27 + 6 * 9 + 18 * 3 + 54), "a stopped network costs nothing"
    assert int(result.ranking()[0]) == int(by_rate[0])


def test_topologies_without_class_weights_are_comparable_by_their_training_loss() -> None:
    rows = [{"widths": widths, "loss": "cross_entropy", "epochs": 4} for widths in ("3,4", "3,5,4")] * 2
    result = train(rows, SuccessiveHalving(2), gpubp.Dataset(*samples(SHAPE, 20)), None)
    assert result.statuses["finished"] == 1


@pytest.mark.parametrize(
    ("factor", "least", "epochs", "every", "left"),
    [
        (3, 1, 27, None, [6] * 2 + [2] * 6 + [1] * 18),
        (3, 1, 26, None, [6] * 2 + [2] * 23),  # no rung at 9: a third of the training is passed
        (2, 3, 12, None, [10, 5, 5]),  # rounds of three epochs
        (2, 3, 12, 1, [20] * 2 + [10] * 3 + [5] * 6),
        (2, 4, 20, 2, [20, 10, 10, 5, 5, 5, 5, 5, 5]),
        (5, 1, 25, 1, [4] * 4 + [1] * 20),
    ],
)
def test_rungs_are_epochs_whatever_the_rounds(
    factor: int, least: int, epochs: int, every: int | None, left: list[int]
) -> None:
    result = train(rated(ascending(20), epochs=epochs, evaluate_every=every), SuccessiveHalving(factor, least))
    assert running(result) == left


def test_equal_networks_go_on_in_the_order_of_their_rows() -> None:
    result = train(rated([0.1] * 9, epochs=9), SuccessiveHalving())
    assert result.table["steps"].to_pylist() == [9, 3, 3, 1, 1, 1, 1, 1, 1]


def test_networks_that_diverge_lose_and_take_no_place() -> None:
    rates = [1e200, 0.1, 1e200, 0.2, 1e200, 1e200, 1e200, 1e200, 1e200]
    result = train(rated(rates, epochs=12), SuccessiveHalving(3, 2))
    assert result.status_names == ["diverged", "finished", "diverged", "finished", *["diverged"] * 5], "three may"
    rates[4:6] = 0.3, 0.4
    result = train(rated(rates, epochs=12), SuccessiveHalving(3, 2))
    assert result.status_names == ["diverged", "stopped", "diverged", *["finished"] * 3, *["diverged"] * 3]


def test_a_result_does_not_hold_the_samples() -> None:
    data = gpubp.Dataset(torch.rand(10_000, 1), torch.rand(10_000, 1))
    result = train(rated([0.1, 0.2], epochs=3, batch_size=10_000), SuccessiveHalving(), data, None)
    assert len(pickle.dumps(result.search)) < 10_000


def test_what_has_stopped_for_itself_takes_no_place() -> None:
    rows = rated(ascending(9), epochs=9, target_loss=0.0)
    rows[8] |= {"target_loss": 1e9}
    result = train(rows, SuccessiveHalving())
    assert result.table["steps"].to_pylist() == [1, 1, 1, 1, 1, 3, 3, 9, 1]
    assert result.status_names[8] == "converged"


class Until(Method):
    """Stops everybody after a round."""

    name, every = "until", 1

    def __init__(self, number: int) -> None:
        self.number = number

    def begin(self, runs: Any) -> list[str]:
        return []

    def decide(self, number: int, runs: Any, found: Any) -> None:
        for run in runs:
            run.stop(torch.full_like(run.state.running, number == self.number))


@pytest.mark.parametrize(
    ("engine", "search"),
    [
        pytest.param("cpu", SuccessiveHalving(2), marks=pytest.mark.slow), ("cuda", SuccessiveHalving(2)),
        ("eager", Hyperband(2)),
    ],
    ids=str,
)  # fmt: skip
def test_every_network_is_what_it_is_without_the_others(engine: str, search: Any) -> None:
    data, held_out = (gpubp.Dataset(*samples(SHAPE, 48, dtype=torch.float32, seed=seed)) for seed in (1, 9))
    kinds = [("3,6,4", "adam", 16), ("3,6,4", "adam", 24), ("3,4", "momentum", 24)]
    kinds = kinds if engine == "eager" else kinds[2:]  # a kernel each
    rows = [{**dict(zip(("widths", "optimizer", "batch_size"), kinds[n % len(kinds)])), "lr": 10 ** (-3 + n / 4),
             "seed": n, "dropout": 0.1 + n / 100} for n in range(9)]  # fmt: skip
    common = {"loss": "cross_entropy", "epochs": 4, "schedule": "cosine", "dtype": torch.float32, "engine": engine}
    common["device"] = "cuda:0" if engine == "cuda" else "cpu"
    if engine == "cuda":
        needs_compiler()
    with machine() if engine == "cuda" else nullcontext():
        result, seen = train(rows, search, data, held_out, **common), []
        for end in (1, 2, 4):
            until = train(rows, Until(end), data, held_out, **common)
            for number in range(len(rows)):
                if result.table["steps"][number] == until.table["steps"][number]:
                    seen.append(number)
                    same(result, number, until, number)
        survivor = result.status_names.index("finished")
        same(result, survivor, train([rows[survivor]], None, data, held_out, **common), 0)
    assert sorted(seen) == list(range(9))


def test_each_entity_has_a_search_of_its_own() -> None:
    """Though the losses of the first are a thousand times those of the last."""
    spec = gpubp.NetworkSpec((3, 2))
    inputs, targets = samples(spec, 60)
    keys = torch.arange(60) % 3
    train_on, held_out = gpubp.Dataset(inputs, targets * 10.0 ** (2 - keys)[:, None]).by(keys.tolist()).split(0.3)
    rows, search = [{"lr": 10 ** (-3 + n / 5), "seed": n, "entity": n % 5 % 3} for n in range(14)], Hyperband(2)
    common = {"widths": "3,2", "epochs": 8, "batch_size": 5, "optimizer": "adam"}
    result = train(rows, search, train_on, held_out, **common)
    for entity in range(3):
        mine = [number for number, row in enumerate(rows) if row["entity"] == entity]
        alone = train([rows[number] for number in mine], search, train_on, held_out, **common)
        assert "finished" in alone.status_names
        for its, number in enumerate(mine):
            assert result.table["rung"][number] == alone.table["rung"][its]
            assert result.status_names[number] == alone.status_names[its]
            same(result, number, alone, its)


@pytest.mark.parametrize("bracketed", [False, True])
def test_the_rungs_of_entities_with_fewer_samples_than_a_batch_are_those_where_they_stop(bracketed: bool) -> None:
    """A step of theirs is more than an epoch, so that their rounds, of a step each, are more epochs."""
    spec = gpubp.NetworkSpec((3, 2))
    data = gpubp.Dataset(*samples(spec, 73)).by([0] * 3 + [1] * 70)
    rows = [{"lr": 10 ** (-4 + n % 9 / 3), "seed": n, "entity": n // 9} for n in range(18)]
    search = Hyperband(3) if bracketed else SuccessiveHalving(3)
    result = train(rows, search, data, None, widths="3,2", epochs=27, batch_size=8)
    table = result.table
    rungs, steps = (torch.tensor(table[name].to_pylist()).view(2, 9) for name in ("rung", "steps"))
    skipped = 3 - torch.tensor(table["bracket"].to_pylist()).view(2, 9) if bracketed else torch.zeros(2, 9)
    rounds = torch.stack([steps[0], torch.div(steps[1] * 8, 70, rounding_mode="floor")])
    for stop, passed in ((1, 0), (3, 1), (9, 2)):  # a network that stops at a rung has passed those before
        assert (rungs + skipped)[rounds == stop].tolist() == [passed] * int((rounds == stop).sum())
    if not bracketed:
        assert rungs.sort(1).values.tolist() == [[0] * 6 + [1, 1, 3]] * 2
    assert result.notes[-1] == (
        "9 of 18 networks have so few samples that a step is more than an epoch: they are evaluated, and compared, "
        "after every step instead"
    )


def same(one: Result, row: int, other: Result, its: int) -> None:
    assert same_bits(one.loss[row], other.loss[its])
    assert alike(one.network(row), other.network(its))


def folds() -> tuple[gpubp.Dataset, gpubp.Dataset]:
    """Two folds in which everybody trains on one line, and is validated on another: in fold 0 on one that the smallest
    weights fit best, in fold 1, where errors weigh more, on a steeper one."""
    inputs = torch.linspace(-1, 1, 16, dtype=torch.float64)[:, None]
    whole = torch.cat([inputs] * 3), torch.cat([3 * inputs, -0.5 * inputs, 9 * inputs])
    train = gpubp.Dataset(*whole, rows=[range(16), range(16)])
    return train, gpubp.Dataset(*whole, rows=[range(16, 32), range(32, 48)])


@pytest.mark.parametrize("apart", [False, True], ids=["fold by fold", "setting by setting"])
def test_the_networks_of_a_setting_stay_or_stop_together_by_their_mean(apart: bool) -> None:
    rows = [{**row, "fold": fold} for fold in range(2) for row in rated(ascending(9), epochs=9)]
    place = torch.arange(18).view(2, 9)
    if apart:
        rows, place = [rows[n] for n in place.T.flatten().tolist()], torch.arange(18).view(9, 2).T
    result = train(rows, SuccessiveHalving(), *folds())
    steps = torch.tensor(result.table["steps"].to_pylist())[place]
    assert steps.tolist() == [[1, 1, 1, 1, 1, 1, 3, 3, 9]] * 2
    assert result.notes == ["successive halving: 9 settings, of which these go on: 3 after 1, 1 after 3 of 9 epochs"]
    assert int(result.validation_loss[place][0].argmin()) == 0, "fold 0 alone would choose otherwise"


def test_a_setting_that_diverges_in_one_fold_ends_in_all() -> None:
    rows = [{**row, "fold": fold} for row in rated([0.1, 0.2, 0.3], epochs=4) for fold in range(2)]
    train_on, held_out = folds()
    targets = train_on.targets.clone()
    inputs = train_on.inputs.clone()
    inputs[0] = 1e160
    apart = gpubp.Dataset(inputs, targets, rows=[range(1, 16), range(16)])
    result = train([rows[0], rows[1], rows[2], *rows[4:]], SuccessiveHalving(2), apart, held_out)
    assert result.status_names == ["stopped", "diverged", "finished", "stopped", "diverged"]


def test_repeated_settings_pair_up_over_the_folds_in_the_order_of_their_rows() -> None:
    rows = [{**row, "fold": fold} for fold in range(2) for row in rated([0.1, 0.2, 0.1, 0.1], epochs=4)]
    result = train(rows, SuccessiveHalving(2), *folds())
    assert result.table["steps"].to_pylist() == [2, 4, 1, 1] * 2


def test_losses_of_different_kinds_are_compared_by_the_metric_as_in_a_result() -> None:
    rows = rated(ascending(8), epochs=4)
    rows = [{**row, "loss": ["mean_squared_error", "huber"][n % 2]} for n, row in enumerate(rows)]
    result = train(rows, SuccessiveHalving(2))
    early = torch.tensor([steps == 1 for steps in result.table["steps"].to_pylist()])
    assert int(early.sum()) == 4
    assert float(result.validation_metric[early].max()) < float(result.validation_metric[~early].min())
    with pytest.raises(ConfigError, match="losses differ in kind: validation data, to compare metrics, expected"):
        train(rows, SuccessiveHalving(2), held_out=None)


def test_hyperband_has_the_brackets_of_the_paper() -> None:
    """Li et al. for R = 81 and eta = 3, by their formula: n_i networks train for r_i epochs."""
    table = {4: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)], 3: [(34, 3), (11, 9), (3, 27), (1, 81)],
             2: [(15, 9), (5, 27), (1, 81)], 1: [(8, 27), (2, 81)], 0: [(5, 81)]}  # fmt: skip
    result = train(rated(ascending(143), epochs=81), Hyperband())
    brackets, steps, rungs = (torch.tensor(result.table[name].to_pylist()) for name in ("bracket", "steps", "rung"))
    rates = torch.tensor(result.table["lr"].to_pylist())
    for bracket, stages in table.items():
        mine = steps[brackets == bracket]
        assert [(int((mine >= epochs).sum()), epochs) for _, epochs in stages] == stages
        assert sorted(set(mine.tolist())) == [epochs for _, epochs in stages]
        assert rungs[brackets == bracket].max() == len(stages) - 1
        assert mine[rates[brackets == bracket].argsort()].tolist() == sorted(mine.tolist()), "the best of each go on"
    assert "hyperband, bracket 0: 5 networks, which train for 81 epochs" in result.notes


def test_brackets_are_dealt_in_the_same_proportions_to_any_number_of_networks() -> None:
    one, again = (train(rated(ascending(60), epochs=9), Hyperband()) for _ in range(2))
    assert [one.table["bracket"].to_pylist().count(bracket) for bracket in (2, 1, 0)] == [32, 17, 11]  # 9 : 5 : 3
    assert one.table.equals(again.table)


@pytest.mark.parametrize(
    ("rows", "search", "told"),
    [
        (rated([0.1, 0.2], epochs=2), SuccessiveHalving(), "after min_resources, 1 epoch, one network of 3 goes on"),
        (rated([0.1], epochs=9, evaluate_every=2), SuccessiveHalving(), "after 1 epoch, and .* every 2: a multiple"),
        ([*rated([0.1], epochs=9), *rated([0.1], steps=9)], SuccessiveHalving(), "a design with epochs, or with steps"),
        ([*rated([0.1], epochs=9, evaluate_every=1), *rated([0.1, 0.2], epochs=9, evaluate_every=3)],
         SuccessiveHalving(3, 3), "every 1 and every 3 epochs: one evaluate_every expected"),
        (rated([0.1], epochs=9), SuccessiveHalving, "search <class .*: a gpubp.search.SuccessiveHalving, Hyperband, "),
        (rated([0.1], epochs=9), "halving", "search 'halving': a gpubp.search.SuccessiveHalving, Hyperband, "),
    ],
)  # fmt: skip
def test_searches_that_cannot_be_are_refused_before_anything_trains(rows: Any, search: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        train(rows, search)


@pytest.mark.parametrize(
    ("given", "told"),
    [({"factor": 1}, "factor 1: a whole number of 2 or more"), ({"factor": 2.5}, "factor 2.5"),
     ({"min_resources": 0}, "min_resources 0: a whole number of 1 or more")],
)  # fmt: skip
def test_settings_of_halving_are_checked(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Hyperband(**given)


def test_steps_count_as_well_as_epochs() -> None:
    result = train(rated(ascending(9), steps=27), SuccessiveHalving(3, 3))
    assert sorted(result.table["steps"].to_pylist()) == [3] * 6 + [9] * 2 + [27]


@pytest.mark.parametrize("epochs", [9, pytest.param(27, marks=pytest.mark.slow)])
def test_results_in_pieces_have_the_columns_of_all(epochs: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no network of a piece has stopped, or none of its first ones."""
    rows = rated([*ascending(9)[:0:-1], 0.05], epochs=epochs)
    whole = train(rows, SuccessiveHalving())
    monkeypatch.setattr("gpubp.results.table.PIECE", 2)
    result = train(rows, SuccessiveHalving(), run_dir=tmp_path / "run")
    assert result.unsaved is None
    assert result.table.equals(whole.table)
    assert read_results(tmp_path / "run" / "results.parquet").equals(whole.table)


def test_rows_whose_order_would_pair_other_initial_weights_in_each_fold_are_refused() -> None:
    """As a search does not see them; in the same order for each fold they are compared as they are meant."""
    data = gpubp.Dataset(torch.rand(20, 2, generator=generator(0)), torch.rand(20, 1)).folds(2)
    design = [{"init_scale": scale, "fold": fold, "seed": 0} for scale in (1.0, 0.1, 9.0) for fold in range(2)]
    common: dict[str, Any] = {"widths": "2,3,1", "loss": "mean_squared_error", "epochs": 4, "engine": "eager"}
    search = SuccessiveHalving(factor=2)
    rungs = gpubp.train_many(design, *data, search=search, **common).table["rung"].to_pylist()
    assert rungs[::2] == rungs[1::2]
    mixed = [design[row] for row in (0, 3, 2, 1, 4, 5)]
    for call in (gpubp.train_many, gpubp.plan):
        with pytest.raises(
            ConfigError, match=r"rows 0 and 1 would be of one setting, of init_scale 1 and 0\.1: rows of"
        ):
            call(mixed, *data, search=search, **common)
