"""Ensembles: what several networks say together, and how far they differ, where the right answer is known."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

import gpubp
from gpubp.errors import CheckpointError, ConfigError, ShapeError
from gpubp.populations import Populations
from gpubp.raw.preparation import Column, Preparation
from gpubp.results import ensemble
from gpubp.results.ensemble import Ensemble
from gpubp.results.model import Model

from .commands import Capture, error, here, run, trained  # noqa: F401
from .helpers import generator
from .tolerances import PREDICTION

SURE = 1000.0  # a logit: the probability of every other class is 0


def constant(loss: str, *outs: list[float]) -> gpubp.Population:
    """Networks whose outs are `outs` for every sample."""
    spec = gpubp.NetworkSpec((1, len(outs[0])), output="identity", loss=loss)
    params = torch.tensor([[0.0] * len(each) + each for each in outs], dtype=torch.float64)
    return gpubp.Population(spec, params, 0, torch.arange(len(outs)))


def together(*populations: gpubp.Population, preparation: Preparation | None = None) -> Ensemble:
    """All networks of these populations; rows alternate between populations of equal size."""
    count = sum(each.count for each in populations)
    rows = tuple(torch.arange(first, count, len(populations)) for first in range(len(populations)))
    return Ensemble(Populations(populations, rows), torch.arange(count), preparation)


def drawn(loss: str, *middles: int, count: int = 6) -> tuple[Ensemble, Tensor, Tensor]:
    """An ensemble of a population per hidden width, inputs, and all outs (K, M, O) in the order of the members."""
    populations = [
        gpubp.Population.create(gpubp.NetworkSpec((4, width, 3), "tanh", loss=loss), count, number, dtype=torch.float64)
        for number, width in enumerate(middles)
    ]
    inputs = torch.randn(70, 4, dtype=torch.float64, generator=generator(3))
    found = together(*populations)
    outs = torch.stack([each.predict(inputs) for each in populations], 1).flatten(0, 1)
    return found, inputs, outs


X = torch.zeros(2, 1, dtype=torch.float64)


@pytest.mark.parametrize("classes", [2, 5])
def test_members_certain_of_different_classes_have_the_mutual_information_ln_c(classes: int) -> None:
    sure = together(constant("cross_entropy", *(SURE * torch.eye(classes)).tolist()))
    for measure in (sure.mutual_information, sure.entropy):
        np.testing.assert_allclose(measure(X), [np.log(classes)] * 2, **PREDICTION)
    doubtful = together(constant("cross_entropy", *[[0.0] * classes] * 4))
    np.testing.assert_allclose(doubtful.entropy(X), np.log(classes), **PREDICTION)
    assert doubtful.mutual_information(X).max() <= 1e-15


def test_a_binary_output_has_the_entropy_of_its_two_classes() -> None:
    binary = Preparation((Column("x"),), (Column("y"),), "binary", ("no", "yes"))
    halves = together(constant("binary_cross_entropy", [-SURE], [SURE], [SURE]), preparation=binary)
    expected = -(1 / 3 * np.log(1 / 3) + 2 / 3 * np.log(2 / 3))
    np.testing.assert_allclose(halves.entropy(X), [expected] * 2)
    np.testing.assert_allclose(halves.mutual_information(X), [expected] * 2)
    assert halves.predict(X).tolist() == ["yes", "yes"]
    np.testing.assert_allclose(halves.predict_proba(X), [[1 / 3, 2 / 3]] * 2)
    np.testing.assert_allclose(halves.std(X), np.full((2, 2), np.std([0, 1, 1])))
    many = together(constant("binary_cross_entropy", [0.0, SURE], [0.0, -SURE]))
    np.testing.assert_allclose(many.entropy(X), [[np.log(2)] * 2] * 2)
    np.testing.assert_allclose(many.mutual_information(X), [[0, np.log(2)]] * 2, atol=1e-15)


@pytest.mark.parametrize("loss", ["mean_squared_error", "poisson", "hinge", "cross_entropy", "binary_cross_entropy"])
def test_statistics_over_several_topologies_are_those_of_numpy_over_all_predictions(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, inputs, outs = drawn(loss, 5, 8, 13)
    said = np.asarray(gpubp.LOSSES[loss].inverse_link(outs))
    for at_once in (ensemble.AT_ONCE, 1):  # as few as can be: a member, or 32 samples
        monkeypatch.setattr(ensemble, "AT_ONCE", at_once)
        np.testing.assert_allclose(found.std(inputs), said.std(0), **PREDICTION)
        np.testing.assert_allclose(found.median(inputs), np.median(said, 0), **PREDICTION)
        q = [0.1, 0.25, 0.9]
        np.testing.assert_allclose(found.quantiles(inputs, q), np.quantile(said, q, 0), **PREDICTION)
        assert found.quantiles(inputs, [0.5]).shape == (1, 70, 3)
        if loss == "cross_entropy":
            assert found.predict(inputs).tolist() == said.mean(0).argmax(-1).tolist()
            np.testing.assert_allclose(found.predict_proba(inputs), said.mean(0), **PREDICTION)
            own = -(said * np.log(said)).sum(-1)
            total = -(said.mean(0) * np.log(said.mean(0))).sum(-1)
            np.testing.assert_allclose(found.entropy(inputs), total, **PREDICTION)
            np.testing.assert_allclose(found.mutual_information(inputs), total - own.mean(0), **PREDICTION)
        else:
            np.testing.assert_allclose(found.predict(inputs), said.mean(0), **PREDICTION)


def test_a_standard_deviation_keeps_its_digits_far_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "AT_ONCE", 1)
    far = together(constant("huber", *[[1e9 + each] for each in range(5)]))
    np.testing.assert_allclose(far.std(X), [[np.sqrt(2)]] * 2, **PREDICTION)


def test_members_are_evaluated_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    found, inputs, _ = drawn("cross_entropy", 5, count=40)
    sizes: list[int] = []
    real = ensemble.forward

    def counted(spec: Any, params: Tensor, given: Tensor) -> Tensor:
        sizes.append(len(params) * len(given) * spec.widths[-1])
        return real(spec, params, given)

    monkeypatch.setattr(ensemble, "forward", counted)
    monkeypatch.setattr(ensemble, "AT_ONCE", limit := 4 * ensemble.PIECE * 3)
    for measure in (found.predict, found.std, found.entropy, found.mutual_information, found.median):
        measure(inputs.repeat(60, 1))
    assert max(sizes) <= limit


def test_numbers_are_in_the_units_of_the_targets() -> None:
    units = Preparation((Column("x"),), (Column("y", offset=100.0, factor=10.0),), "numbers")
    found = together(constant("huber", [0.0], [1.0], [5.0]), preparation=units)
    assert found.predict(X).tolist() == [120, 120]
    assert found.median(X).tolist() == [110, 110]
    assert found.quantiles(X, (0, 1)).tolist() == [[100, 100], [150, 150]]
    np.testing.assert_allclose(found.std(X), np.std([100, 110, 150]))
    summary = found.summary(X)
    assert list(summary) == ["prediction", "std", "q05", "q50", "q95"]
    np.testing.assert_allclose(summary["q95"], np.quantile([100, 110, 150], 0.95))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "hinge", "mean_squared_error"])
def test_figures_of_an_ensemble_are_those_of_scikit_learn_for_its_mean(loss: str, weighted: bool) -> None:
    found, inputs, outs = drawn(loss, 5, 8)
    mean = gpubp.LOSSES[loss].inverse_link(outs).mean(0).numpy()
    source = generator(5)
    weight = torch.rand(70, generator=source) if weighted else None
    yes = torch.rand(70, 3, generator=source) > 0.5
    targets = {
        "cross_entropy": torch.randint(3, (70,), generator=source),
        "binary_cross_entropy": yes.double(),
        "hinge": 2 * yes.double() - 1,
        "mean_squared_error": torch.randn(70, 3, dtype=torch.float64, generator=source),
    }[loss]
    true, half = targets.numpy(), 0.5 if loss == "binary_cross_entropy" else 0
    own = {"sample_weight": None if weight is None else weight.numpy()}
    expected = {
        "cross_entropy": {"accuracy": lambda y, p: metrics.accuracy_score(y, p.argmax(1), **own),
                          "log_loss": lambda y, p: metrics.log_loss(y, p, **own)},
        "mean_squared_error": {"r2": lambda y, p: metrics.r2_score(y, p, **own),
                               "mean_squared_error": lambda y, p: metrics.mean_squared_error(y, p, **own)},
        "hinge": {"accuracy": lambda y, p: metrics.accuracy_score(y > 0, p > half, **own)},
        "binary_cross_entropy": {"accuracy": lambda y, p: metrics.accuracy_score(y > 0, p > half, **own),
                                 "log_loss": lambda y, p: metrics.log_loss(y, p, **own)},
    }[loss]  # fmt: skip
    outputs = [*zip(true.T, mean.T)] if loss in ("hinge", "binary_cross_entropy") else [(true, mean)]  # their mean
    told = found.evaluate(gpubp.Dataset(inputs, targets, sample_weight=weight))
    wanted = {name: np.mean([figure(*each) for each in outputs]) for name, figure in expected.items()}
    assert told == pytest.approx(wanted, rel=PREDICTION["rtol"])


def test_members_are_the_best_or_those_that_are_named_and_never_diverged() -> None:
    inputs = torch.randn(40, 3, generator=generator(1))
    networks = gpubp.Population.create(gpubp.NetworkSpec((3, 4, 2), hidden="relu"), 6)
    lr = torch.tensor([0.01, 1e30, 0.02, 0.05, 1e30, 0.1])
    config = gpubp.TrainConfig(optimizer="sgd", lr=lr, steps=30)
    result = gpubp.train(networks, gpubp.Dataset(inputs, inputs[:, :2]), config, engine="eager")
    good = result.ranking().tolist()
    assert sorted(good) == [0, 2, 3, 5]
    assert result.ensemble(best=2).rows.tolist() == good[:2]
    assert result.ensemble().rows.tolist() == good
    assert result.ensemble(rows=[3, -1]).rows.tolist() == [3, 5]
    assert result.ensemble(rows=~(result.status == gpubp.Status.diverged)).rows.tolist() == [0, 2, 3, 5]
    model = Model(result.populations, None, result.table)
    assert np.array_equal(result.ensemble(best=2).predict(inputs), model.predict(inputs, 2))
    assert np.array_equal(model.ensemble(best=2).predict(inputs), model.predict(inputs, 2))
    assert result.ensemble(rows=torch.tensor([2])).rows.tolist() == [2]
    alone = gpubp.Ensemble(result.population, [3, -1])  # type: ignore[arg-type]
    assert np.array_equal(alone.predict(inputs), result.ensemble(rows=[3, 5]).predict(inputs))
    assert repr(model.ensemble(best=2)) == "Ensemble(2 of 6 networks, mean_squared_error)"
    for given, told in (
        ({"rows": [0, 1, 4]}, "rows: networks 1, 4 diverged"),
        ({"best": 5}, "best 5: the run has 4 networks that did not diverge"),
        ({"best": 0}, "best 0: best, all, a number of 1 or more"),
        ({"rows": []}, "rows: one row or more expected"),
        ({"rows": 3}, "rows 3: a sequence of rows"),
        ({"rows": torch.tensor(3)}, "a sequence of rows"),
        ({"rows": [6]}, "row 6: a row from 0 to 5, or from -6 to -1 from the end, expected"),
        ({"best": 2, "rows": [1]}, "one of them expected"),
    ):
        for source in (result, model):
            with pytest.raises(ConfigError, match=told):
                source.ensemble(**given)  # type: ignore[arg-type]


def test_a_run_that_has_not_ended_knows_who_diverged_and_ranks_nobody(tmp_path: Path) -> None:
    inputs = torch.randn(20, 3, generator=generator(1))
    networks = gpubp.Population.create(gpubp.NetworkSpec((3, 2)), 3)
    config = gpubp.TrainConfig(optimizer="sgd", lr=[0.01, 1e30, 0.02], steps=30)
    gpubp.train(networks, gpubp.Dataset(inputs, inputs[:, :2]), config, engine="eager", run_dir=tmp_path / "run")
    (tmp_path / "run" / "results.parquet").unlink()
    model = gpubp.load(tmp_path / "run")
    assert model.ensemble(rows=[0, 2]).predict(inputs).shape == (20, 2)
    with pytest.raises(ConfigError, match="rows: networks 1 diverged"):
        model.ensemble(rows=[0, 1])
    with pytest.raises(CheckpointError, match="the networks have no ranking"):
        model.ensemble(best=1)


def test_losses_that_predict_one_kind_of_number_mix_and_others_are_refused() -> None:
    rates = together(constant("poisson", [0.0], [np.log(3)]), constant("huber", [5.0], [7.0]))
    np.testing.assert_allclose(rates.predict(X), [[4.0]] * 2)
    np.testing.assert_allclose(rates.median(X), [[4.0]] * 2)
    for one, other in (("huber", "binary_cross_entropy"), ("hinge", "binary_cross_entropy"), ("huber", "hinge")):
        with pytest.raises(ConfigError, match=r"losses .*, which predict different kinds of numbers"):
            together(constant(one, [0.0]), constant(other, [0.0]))
    mixed = Populations((constant("huber", [0.0]), constant("hinge", [0.0])), (torch.tensor([0]), torch.tensor([1])))
    assert Ensemble(mixed, torch.tensor([0])).predict(X).tolist() == [[0], [0]]


def test_what_an_ensemble_cannot_answer_is_refused() -> None:
    found, inputs, _ = drawn("mean_squared_error", 5)
    for measure in (found.entropy, found.mutual_information, found.predict_proba):
        with pytest.raises(ConfigError, match="loss 'mean_squared_error' gives no probabilities"):
            measure(inputs)
    for q in (1.5, [], [[0.5]], float("nan"), "half"):
        with pytest.raises(ConfigError, match="q"):
            found.quantiles(inputs, q)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"\(M, 4\) expected"):
        found.std(inputs[:, :3])
    each = gpubp.Dataset(inputs, inputs[:, :3], rows=[range(5)] * 6)
    with pytest.raises(ConfigError, match="the same for all networks"):
        found.evaluate(each)
    with pytest.raises(ShapeError, match="targets"):
        found.evaluate(gpubp.Dataset(inputs, inputs))
    broken = together(constant("huber", [np.inf], [np.inf]))
    with pytest.warns(UserWarning, match="2 of 2 numbers are NaN or infinite"):
        broken.median(X)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_predict_writes_how_far_networks_differ(capsys: Capture) -> None:
    points = np.random.default_rng(3).uniform(-1, 1, (80, 2))
    kinds = np.where((points**2).sum(1) < 0.5, "inside", "outside")
    lines = [f"{x:.6f},{y:.6f},{kind},{x + y:.6f}" for (x, y), kind in zip(points, kinds)]
    Path("points.csv").write_text("\n".join(["x,y,kind,sum", *lines]) + "\n")
    settings = "--data points.csv --networks 5 --epochs 3 --tensorboard false"
    trained(f"{settings} --target kind --drop sum --run-dir kinds", capsys)
    trained(f"{settings} --target sum --drop kind --run-dir sums", capsys)
    kinds_of, sums_of = gpubp.load("kinds").ensemble(best=4), gpubp.load("sums").ensemble(best=4)
    rows = table(run("predict kinds --data points.csv --networks 4 --spread", capsys))
    assert list(rows[0]) == ["prediction", "entropy", "mutual_information"]
    assert [row["prediction"] for row in rows] == kinds_of.predict("points.csv").tolist()
    told = [float(row["mutual_information"]) for row in rows]
    np.testing.assert_allclose(told, kinds_of.mutual_information("points.csv"))
    rows = table(run("predict kinds --data points.csv --networks 4 --spread --proba", capsys))
    names = [f"{word}_{kind}" for word in ("probability", "std") for kind in ("inside", "outside")]
    assert list(rows[0]) == [*names, "entropy", "mutual_information"]
    np.testing.assert_allclose([float(row["std_inside"]) for row in rows], kinds_of.std("points.csv")[:, 0])
    rows = table(run("predict sums --data points.csv --networks 4 --spread", capsys))
    assert list(rows[0]) == ["prediction", "std", "q05", "q50", "q95"]
    np.testing.assert_allclose([float(row["q50"]) for row in rows], sums_of.median("points.csv"))
    for wrong, why in (
        ("kinds --each", "--each and --spread: one of them"),
        ("sums --proba", "gives no probabilities"),
    ):
        assert run(f"predict {wrong} --data points.csv --spread", capsys, 1) == ""
        assert why in error(f"predict {wrong} --data points.csv --spread", capsys)
