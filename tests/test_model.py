"""A run's networks on raw samples: the preparation goes with them, and predictions are in the units of the targets."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.errors import CheckpointError, DataError, ShapeError
from gpubp.raw.preparation import Preparation
from gpubp.results.model import Model
from gpubp.samples.folds import split

from .helpers import LOGITS, generator, same_bits
from .tolerances import PREDICTION

COLOURS = ("blue", "green", "red")
SAMPLES = 60
TARGETS: dict[str, Callable[[np.ndarray], Any]] = {  # of a number around 0, as a person's file has them
    "cross_entropy": lambda x: np.array(["low", "middle", "high"])[np.digitize(x, [-0.5, 0.5])],
    "binary_cross_entropy": lambda x: np.where(x > 0, "yes", "no"),
    "hinge": lambda x: np.where(x > 0, "yes", "no"),
    "poisson": lambda x: np.floor(10 * np.exp(x)).astype(int),
}


def columns(loss: str) -> dict[str, list[Any]]:
    """Raw columns of very unlike sizes, one of texts and two with gaps, and a target."""
    source = np.random.default_rng(4)
    size, near = 1e5 + 3e4 * source.normal(size=SAMPLES), source.normal(size=SAMPLES) / 50
    colour = source.integers(3, size=SAMPLES)
    hidden = (size - 1e5) / 3e4 + 20 * near + colour - 1
    target = TARGETS.get(loss, lambda x: 2e5 + 1e4 * x)(hidden / 2)
    found = {"size": size.tolist(), "colour": [COLOURS[n] for n in colour], "near": near.tolist(), "y": target.tolist()}
    found["near"][3], found["colour"][5] = None, None
    return found


def trained(folder: Path, loss: str, count: int = 5, **settings: Any) -> tuple[Model, dict[str, list[Any]]]:
    """A model of a run on a file of columns(), and these columns without the target."""
    raw, path = columns(loss), folder / "raw.csv"
    pa.csv.write_csv(pa.table(raw), path)
    scaled = "none" if loss in LOGITS else "standard"
    data = gpubp.load_data(path, target="y", loss=loss, impute="mean", scale_targets=scaled)
    spec = gpubp.NetworkSpec((data.widths_in, 8, data.widths_out), "tanh", loss=loss)
    networks = gpubp.Population.create(spec, count, dtype=torch.float64)
    config = gpubp.TrainConfig(lr=0.03, batch_size=16, **{"steps": 150, "evaluate_every": 150, **settings})
    gpubp.train(networks, data.training, config, data.validation, engine="eager", run_dir=folder / "run")
    del raw["y"]
    return gpubp.load(folder / "run"), raw


def by_hand(raw: dict[str, list[Any]], model: Model) -> Tensor:
    """The outs (N, M, O) of all networks, with means and deviations taken from the raw training part anew."""
    rows = split(SAMPLES, 0.2, 0)[0].numpy()
    inputs = []
    for name in ("size", "near"):
        values = np.array([np.nan if value is None else value for value in raw[name]])
        values = np.where(np.isnan(values), np.nanmean(values[rows]), values)
        inputs.append((values - values[rows].mean()) / values[rows].std())
    texts = [raw["colour"][row] for row in rows if raw["colour"][row]]
    usual = max(COLOURS, key=texts.count)
    hot = [np.array([(value or usual) == colour for value in raw["colour"]], float) for colour in COLOURS]
    prepared = torch.tensor(np.stack([inputs[0], *hot, inputs[1]], 1))
    return model.population.predict(prepared)


def expected(loss: str, out: Tensor) -> np.ndarray:
    """What a person expects to read of outs (M, O) of one network, or of the mean over networks (K, M, O)."""
    raw = columns(loss)["y"]
    if loss == "cross_entropy":
        return np.array(["high", "low", "middle"])[out.softmax(-1).mean(0).argmax(-1)]
    if loss == "binary_cross_entropy":
        return np.where(out.sigmoid().mean(0)[:, 0] > 0.5, "yes", "no")
    if loss == "hinge":
        return np.where(out.clamp(-1, 1).mean(0)[:, 0] > 0, "yes", "no")
    if loss == "poisson":
        return out.exp().mean(0)[:, 0].numpy()
    known = np.array(raw)[split(SAMPLES, 0.2, 0)[0].numpy()]
    return known.mean() + known.std() * out.mean(0)[:, 0].numpy()


LIKE_HUBER = [pytest.param(each, marks=pytest.mark.slow) for each in gpubp.LOSSES if each not in ("huber", *TARGETS)]


@pytest.mark.parametrize("loss", ["huber", *TARGETS, *LIKE_HUBER])
def test_predictions_on_raw_samples_are_those_by_hand_in_the_units_of_the_targets(loss: str, tmp_path: Path) -> None:
    model, raw = trained(tmp_path, loss, steps=20)
    outs = by_hand(raw, model)
    for networks, rows in (([3], [3]), ("best", model.ranking()[:1]), (3, model.ranking()[:3]), ("all", range(5))):
        told, right = model.predict(raw, networks), expected(loss, outs[torch.as_tensor(list(rows))])
        assert told.shape == (SAMPLES,)
        if loss in TARGETS and loss != "poisson":
            assert told.tolist() == right.tolist()
        else:
            np.testing.assert_allclose(told, right, rtol=PREDICTION["rtol"])
    each = model.predict(raw, [4, 1], each=True)
    assert [row.tolist() for row in each] == [model.predict(raw, [row]).tolist() for row in (4, 1)]


@pytest.mark.parametrize("loss", ["cross_entropy", "poisson", "huber"])
def test_a_trained_network_of_a_run_is_right_on_raw_numbers(loss: str, tmp_path: Path) -> None:
    """Without scaling, sizes of 1e5 saturate every unit."""
    model, raw = trained(tmp_path, loss)
    codes = [None if colour is None else COLOURS.index(colour) for colour in raw["colour"]]
    tensor = torch.tensor(np.array([raw["size"], codes, raw["near"]], float).T)
    best, target = int(model.ranking()[0]), np.array(columns(loss)["y"])
    module = model.network(best)
    out, told = module(tensor).detach(), model.predict(raw)
    if model.classes:
        assert np.array(model.classes)[out.argmax(-1)].tolist() == told.tolist()
        assert (told == target).mean() > 0.85
    else:
        np.testing.assert_allclose(out[:, 0], told, rtol=PREDICTION["rtol"])
        assert np.corrcoef(told, target)[0, 1] > 0.85
        assert 0.8 < told.mean() / target.mean() < 1.25
    bare = model.network(best, raw=True)
    assert isinstance(bare, torch.nn.Sequential)
    assert same_bits(bare[0].weight, model.population.network(best)[0].weight)
    assert same_bits(bare(model.inputs(raw)), module.network(module_inputs(module, tensor)))


def module_inputs(module: torch.nn.Module, raw: Tensor) -> Tensor:
    """What a PreparedNetwork gives its network."""
    given: list[Tensor] = []
    handle = module.network.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    module(raw)
    handle.remove()
    return given[0]


def test_a_prepared_network_moves_is_copied_and_learns_like_any_module(tmp_path: Path) -> None:
    model, _ = trained(tmp_path, "huber", steps=2)
    module, raw = model.network(0), torch.tensor([[1e5, 1.0, 0.01], [2e5, -1.0, float("nan")]], dtype=torch.float64)
    out = module(raw)
    assert out.shape == (2, 1)
    assert module(raw[None].expand(4, 2, 3)).shape == (4, 2, 1)
    torch.testing.assert_close(copy.deepcopy(module).float()(raw.float()), out.float(), rtol=1e-4, atol=1e-2)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    other = model.network(1)
    other.load_state_dict(torch.load(tmp_path / "weights.pt"))
    assert same_bits(other(raw), out)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert module_inputs(module, raw)[1, 1:4].tolist() == [0, 0, 0], "a text that training did not have"


def rows_of(raw: dict[str, list[Any]]) -> list[list[Any]]:
    return [list(row) for row in zip(*raw.values())]


KINDS: dict[str, Callable[[dict[str, list[Any]], Path], Any]] = {
    "polars": lambda raw, _: pl.DataFrame(raw),
    "frame with more columns in another order": lambda raw, _: pl.DataFrame(
        {"when": np.zeros(SAMPLES, "datetime64[ms]"), **dict(reversed(raw.items()))}
    ),
    "pandas with an index that is no range": lambda raw, _: pd.DataFrame(raw, index=7 * np.arange(SAMPLES)),
    "columns as numpy has them": lambda raw, _: {
        name: np.array([np.nan if value is None else value for value in values], object if name == "colour" else None)
        for name, values in raw.items()
    },
    "pyarrow": lambda raw, _: pa.table(raw),
    "texts by their numbers, as polars has them": lambda raw, _: pa.table(
        {**raw, "colour": pa.array(raw["colour"], pa.string_view()).dictionary_encode()}
    ),
    "texts by their numbers": lambda raw, _: pa.table({**raw, "colour": pa.array(raw["colour"]).dictionary_encode()}),
    "mappings": lambda raw, _: [dict(zip(raw, row)) for row in rows_of(raw)],
    "mappings that leave out what is missing": lambda raw, _: [
        {name: value for name, value in zip(raw, row) if value is not None} for row in rows_of(raw)
    ],
    "rows": lambda raw, _: rows_of(raw),
    "array": lambda raw, _: np.array(rows_of(raw), dtype=object),
    "file": lambda raw, path: write(raw, path),
    "table": lambda raw, path: gpubp.raw.tables.read(write(raw, path)),
}


def write(raw: dict[str, list[Any]], folder: Path) -> str:
    pa.csv.write_csv(pa.table(raw), folder / "new.csv")
    return str(folder / "new.csv")


def test_samples_of_every_kind_give_the_same_predictions(tmp_path: Path) -> None:
    model, raw = trained(tmp_path, "cross_entropy", steps=5)
    expected = model.predict_proba(raw, "all")
    for name, make in KINDS.items():
        assert np.array_equal(model.predict_proba(make(raw, tmp_path), "all"), expected), name


def test_a_run_on_plain_tensors_uses_them_unchanged(tmp_path: Path) -> None:
    inputs = torch.randn(40, 3, generator=generator(1))
    data = gpubp.Dataset(inputs, inputs.argmax(1))
    networks = gpubp.Population.create(gpubp.NetworkSpec((3, 8, 3), loss="cross_entropy"), 4)
    config = gpubp.TrainConfig(lr=0.05, steps=60, batch_size=20)
    for name in ("preparation.json", "checkpoint/lock"):  # of a run that ended before it saved anything
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("")
    result = gpubp.train(networks, data, config, engine="eager", run_dir=tmp_path / "run")
    model = gpubp.load(tmp_path / "run")
    assert model.preparation is None
    assert model.classes == (0, 1, 2)
    assert same_bits(model.ranking(), result.ranking())
    assert (model.predict(inputs, "all") == inputs.argmax(1).numpy()).mean() > 0.9
    assert np.array_equal(model.predict_proba(inputs.numpy().tolist()), model.predict_proba(inputs))
    module = model.network(2)
    assert isinstance(module, torch.nn.Sequential)
    assert same_bits(module(inputs), model.network(2, raw=True)(inputs))
    for wrong in ("new.csv", {"x": [1]}, [{"x": 1}], torch.zeros(2, 4), torch.zeros(3)):
        with pytest.raises((DataError, ShapeError), match=r"\(M, 3\)"):
            model.predict(wrong)


def test_an_unfinished_run_has_no_ranking_and_predicts_by_rows(tmp_path: Path) -> None:
    model, raw = trained(tmp_path, "huber", steps=5)
    known = model.predict(raw, [1])
    (tmp_path / "run" / "results.parquet").rename(tmp_path / "before.parquet")
    killed = gpubp.load(tmp_path / "run")
    assert np.array_equal(killed.predict(raw, [1]), known)
    for networks in ("best", "all", 2):
        with pytest.raises(CheckpointError, match=r"results.parquet is missing, damaged or not .*gpubp resume"):
            killed.predict(raw, networks)
    data = gpubp.load_data(tmp_path / "raw.csv", target="y", loss="huber", impute="mean", scale_targets="standard")
    gpubp.resume(tmp_path / "run", data.training, data.validation, steps=10)
    assert len(gpubp.load(tmp_path / "run").ranking()) == 5
    (tmp_path / "before.parquet").replace(tmp_path / "run" / "results.parquet")
    assert gpubp.load(tmp_path / "run").results is None, "of the checkpoint of before"


def test_a_column_unlike_all_of_training_is_warned_of(tmp_path: Path) -> None:
    model, raw = trained(tmp_path, "huber", steps=2)
    with pytest.warns(UserWarning, match=r"samples: column 'size' holds .*; are the units the same\?"):
        model.predict({**raw, "size": [each / 1000 for each in raw["size"]]})


def test_predictions_of_many_networks_come_in_pieces_with_the_same_bits(tmp_path: Path) -> None:
    model, raw = trained(tmp_path, "cross_entropy", steps=2)
    many = {name: np.tile(values, 20) for name, values in raw.items()}
    for proba, said in ((False, model.predict), (True, model.predict_proba)):
        whole, mean = said(many, "all", each=True), said(many, "all")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gpubp.results.ensemble.AT_ONCE", 64 * len(model) * 3)
            pieces = list(model.pieces(many, "all", each=True, proba=proba))
            assert len(pieces) > 2
            assert {piece.shape[1] for piece in pieces[:-1]} == {64}
            assert np.concatenate(pieces, 1).tobytes() == whole.tobytes()
            assert np.concatenate(list(model.pieces(many, "all", proba=proba))).tobytes() == mean.tobytes()


def test_a_preparation_of_other_networks_is_refused_and_damaged_results_rank_nothing(tmp_path: Path) -> None:
    model, raw = trained(tmp_path, "huber", steps=2)
    path = tmp_path / "run" / "preparation.json"
    kept = path.read_text()
    path.write_text(kept.replace('"green",', ""))
    with pytest.raises(CheckpointError, match=r"preparation.json is damaged or missing: its SHA-256 is not the one"):
        gpubp.load(tmp_path / "run")
    with pytest.raises(ShapeError, match="preparation of 4 inputs and 1 outputs; the networks have 5 and 1"):
        Model(model.population, Preparation.from_dict(json.loads(path.read_text())))
    path.write_text(kept)
    (tmp_path / "run" / "results.parquet").write_bytes(b"PAR1")
    with pytest.warns(
        UserWarning,
        match=r"results.parquet cannot be read: it is not a whole .parquet file; the networks have no ranking",
    ):
        damaged = gpubp.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"results.parquet is missing, damaged or not of this checkpoint"):
        damaged.predict(raw)
    assert np.array_equal(damaged.predict(raw, [2]), model.predict(raw, [2]))


def test_the_repr_of_a_model_is_one_line(tmp_path: Path) -> None:
    model, _ = trained(tmp_path, "cross_entropy", steps=1)
    assert repr(model) == "Model(5 networks of 5-8-3, cross_entropy: 3 columns -> y (high, low, middle))"
    assert len(model) == 5
    bare = Model(model.population.take([0]))
    assert repr(bare) == "Model(1 network of 5-8-3, cross_entropy, on plain tensors)"
