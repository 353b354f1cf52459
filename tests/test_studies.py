"""Studies of a results table, where the right answer is known: from scipy, from numpy, or by how the table was made."""

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from rich.console import Console
from scipy import stats

import gpubp
from gpubp import studies
from gpubp.cli import main
from gpubp.commands import study_tables
from gpubp.errors import ConfigError

from .commands import Capture, here, run, trained  # noqa: F401
from .tolerances import PREDICTION

SOURCE = np.random.default_rng(7)


def results(**columns: Any) -> pa.Table:
    """A results table of these columns."""
    count = len(next(iter(columns.values())))
    usual = {"network": range(count), "id": range(count), "status": ["finished"] * count, "steps": [1] * count}
    return pa.table({name: pa.array(values) for name, values in {**usual, **columns}.items()})


def test_a_study_of_a_frame_is_that_of_its_table() -> None:
    optimizers = ["sgd", "adam", None, "sgd"]
    table = results(validation_loss=[1.0, 2.0, 4.0, 3.0], lr=[0.1, 0.1, 0.2, 0.2], optimizer=optimizers)
    frame, polar, pair = table.to_pandas(), pl.from_arrow(table), ["lr", "optimizer"]
    coded = polar.with_columns(pl.col("optimizer").cast(pl.Categorical))
    for each in (frame, frame.astype({"status": "category", "optimizer": "category"}), polar, coded):
        assert str(studies.Study(each).by(pair)) == str(studies.Study(table).by(pair))
        assert studies.Study(each).varied == studies.Study(table).varied == pair


def test_a_study_says_what_it_is_of() -> None:
    study = studies.Study(results(lr=[0.1, 0.2, 0.1], loss=[3.0, 1.0, 2.0]))
    assert repr(study) == "Study(3 networks by loss; lr varied)"


def test_rank_correlations_are_those_of_scipy_also_with_ties() -> None:
    for one, other in (
        (SOURCE.normal(size=200), SOURCE.normal(size=200)),
        (SOURCE.integers(5, size=300), SOURCE.integers(3, size=300)),
        (np.arange(9.0), np.exp(np.arange(9.0))),
    ):
        assert studies.spearman(one, other) == pytest.approx(stats.spearmanr(one, other)[0], abs=1e-12)
    assert np.isnan(studies.spearman(np.ones(4), np.arange(4)))


def test_the_explained_share_is_that_of_the_test_of_kruskal_and_wallis() -> None:
    groups, values = SOURCE.integers(4, size=150), SOURCE.normal(size=150).round(1)
    statistic = stats.kruskal(*(values[groups == each] for each in range(4)))[0]
    assert studies.explained(groups, values) == pytest.approx((statistic - 3) / (150 - 4))
    assert studies.explained(groups, groups * 1.0) == pytest.approx(1)
    assert np.isnan(studies.explained(np.arange(5), np.arange(5.0)))


def test_a_bootstrap_interval_of_the_mean_is_the_normal_one() -> None:
    """Its ends are quantiles of 2,000 resamples: off by 2 % of their distance from the mean, one standard error."""
    values = SOURCE.exponential(size=1000)
    error = values.std() / 1000**0.5
    found = studies.bootstrap(values)
    assert found["mean_interval"] == pytest.approx(
        [values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.25 * error
    )
    low, high = found["median_interval"]
    near = stats.norm.ppf(0.975) / (2 * 1000**0.5)  # the ranks of a median are binomial
    assert [low, high] == pytest.approx(np.quantile(values, [0.5 - near, 0.5 + near]), abs=0.02)
    assert found == studies.bootstrap(values)
    assert found != studies.bootstrap(values, seed=1)


def test_a_bootstrap_in_pieces_is_the_same_and_one_of_very_many_numbers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    values = SOURCE.normal(size=60)
    whole = studies.bootstrap(values)
    monkeypatch.setattr(studies, "AT_ONCE", 60 * 7)
    assert studies.bootstrap(values) == whole
    monkeypatch.setattr(studies, "DRAWS", 60 * 10)
    assert studies.bootstrap(values)["resamples"] == studies.FEWEST


def test_a_seed_study_has_the_distribution_of_its_figures() -> None:
    loss, accuracy = SOURCE.gamma(2, size=101), SOURCE.random(101)
    status = ["finished"] * 100 + ["diverged"]
    study = studies.Study(results(loss=loss, accuracy=accuracy, lr=[0.1] * 101, status=status))
    found = study.distributions()
    assert list(found) == ["loss", "accuracy"]
    told = found["loss"]
    assert told["networks"] == 100
    assert [told[name] for name in ("min", "q25", "median", "q75", "max")] == np.quantile(
        loss[:100], [0, 0.25, 0.5, 0.75, 1]
    ).tolist()
    assert (told["mean"], told["std"]) == pytest.approx((loss[:100].mean(), loss[:100].std(ddof=1)))
    assert study.effects() == []
    for other in ({"lr": SOURCE.random(101)}, {"fold": [0, 1] * 50 + [0]}):
        assert studies.Study(results(loss=loss, accuracy=accuracy, **other)).distributions() == {}


def sweep() -> tuple[studies.Study, np.ndarray, np.ndarray]:
    """A valley over the logarithm of lr, and a plain slope over dropout; where lr is largest, a fifth diverged."""
    lr, dropout = 10 ** SOURCE.uniform(-4, 0, size=600), SOURCE.uniform(size=600)
    loss = (np.log10(lr) + 2) ** 2 + dropout
    status = np.where((lr > 10**-0.5) & (np.arange(600) % 5 == 0), "diverged", "finished")
    columns = {
        "optimizer": ["adam", "sgd"] * 300,
        "widths": ["8,4,2", "8,16,4,2", "8,2"] * 200,
        "batch_size": [8] * 600,
    }
    return studies.Study(results(loss=loss, r2=-loss, lr=lr, dropout=dropout, status=status, **columns)), lr, loss


def test_the_effect_of_a_valley_is_explained_by_its_bins_where_a_rank_correlation_is_blind() -> None:
    study, lr, loss = sweep()
    found = {effect.name: effect for effect in study.effects()}
    assert list(found)[:2] == ["lr", "dropout"]
    assert set(found) == {"lr", "dropout", "optimizer", "widths", "hidden_layers", "hidden_width"}
    assert abs(found["lr"].correlation or 1) < 0.2
    assert found["lr"].explained > 0.8
    assert found["dropout"].correlation == pytest.approx(
        stats.spearmanr(study.results["dropout"].to_numpy()[study.counted], loss[study.counted])[0]
    )
    assert found["optimizer"].correlation is None
    assert abs(found["optimizer"].explained) < 0.02
    edges = np.geomspace(lr.min(), lr.max(), studies.BINS + 1)
    for number, group in enumerate(found["lr"].groups):
        assert group.values["lr"] == pytest.approx(edges[number : number + 2])
        inside = (lr >= edges[number]) & ((lr < edges[number + 1]) | (number == studies.BINS - 1))
        own = loss[inside & study.counted]
        assert (group.networks, group.diverged) == (inside.sum(), (inside & study.diverged).sum())
        assert (group.mean, group.median) == pytest.approx((own.mean(), np.median(own)))
        assert group.error == pytest.approx(stats.sem(own))
    widths = [group.values["dropout"][1] - group.values["dropout"][0] for group in found["dropout"].groups]
    np.testing.assert_allclose(widths, widths[0], **PREDICTION)


def test_groups_are_by_one_or_two_columns_also_without_a_value() -> None:
    study, *_ = sweep()
    layers = study.by(["hidden_layers"])
    assert [(group.values["hidden_layers"], group.networks) for group in layers] == [(0, 200), (1, 200), (2, 200)]
    widest = study.by(["hidden_width"])
    assert [group.values["hidden_width"] for group in widest] == [4, 16, None]
    crossed = study.by(["lr", "optimizer"])
    assert len(crossed) == 2 * studies.BINS
    assert sum(group.networks for group in crossed) == 600
    first = study.by(["lr"])[0]
    assert sum(group.networks for group in crossed[:2]) == first.networks
    assert repr(study.by("lr")) == repr(study.by(["lr"]))
    for wrong, told in (
        (["lrr"], "did you mean 'lr'"),
        (["lr", "lr"], "one or two columns"),
        ([], "one or two columns"),
    ):
        with pytest.raises(ConfigError, match=told):
            study.by(wrong)


def test_what_follows_from_the_optimizer_is_no_setting_of_its_own() -> None:
    shared = {"loss": SOURCE.random(8), "optimizer": ["adam", "sgd"] * 4, "beta1": [0.9, None] * 4}
    assert studies.Study(results(**shared)).varied == ["optimizer"]
    patience = {"patience": [None, None, 5.0, 5.0] * 2}
    assert studies.Study(results(**shared, **patience)).varied == ["optimizer", "patience"]
    study = studies.Study(results(**shared, **patience, hidden=["relu", ""] * 4, widths=["2,1,1", "2,1"] * 4))
    assert study.varied == ["optimizer", "patience", "widths", "hidden_layers"]
    (effect,) = (each for each in study.effects() if each.name == "patience")
    assert [group.values["patience"] for group in effect.groups] == [5, None]


def test_settings_over_seeds_are_ranked_by_their_means_without_those_that_diverged() -> None:
    lr = np.repeat([0.1, 0.01, 1.0], 4)
    loss = np.array([3, 4, 5, 6, 1, 2, 3, 9, 0, 0, 0, 0.0])
    status = ["finished"] * 11 + ["diverged"]
    found = studies.Study(results(loss=loss, r2=1 - loss, lr=lr, status=status)).settings(5)
    assert [entry["lr"] for entry in found] == [0.01, 0.1]
    assert (found[0]["networks"], found[0]["loss"]) == (4, 3.75)
    assert found[0]["± loss"] == pytest.approx(stats.sem(loss[4:8]))
    assert found[0]["r2"] == 1 - 3.75
    assert studies.Study(results(loss=loss, lr=np.arange(12.0))).settings(5) == []


def test_networks_with_different_losses_are_studied_by_their_metric() -> None:
    columns = {"loss": [0.1, 0.2, 5.0, 6.0], "r2": [0.5, 0.6, 0.7, 0.8], "lr": [1.0, 1.0, 2.0, 2.0]}
    study = studies.Study(results(**columns, loss_function=["huber", "huber", "log_cosh", "log_cosh"]))
    assert study.figure == "r2"
    assert [entry["loss_function"] for entry in study.settings(2)] == ["log_cosh", "huber"]


@pytest.mark.parametrize("many", [1, 60_000])
def test_a_study_of_any_size_is_quick(many: int) -> None:
    before = time.process_time()
    study = studies.Study(results(loss=SOURCE.random(many), lr=SOURCE.random(many), fold=np.arange(many) % 5))
    assert len(study.effects()) == (0 if many == 1 else 2)
    assert study.settings(5) == []
    assert study.distributions() == {}
    assert time.process_time() - before < 5


def test_inspect_tells_of_a_study_and_its_json_has_all_numbers(capsys: Capture) -> None:
    common = "--data iris --epochs 2 --networks"
    trained(f"{common} 12 --run-dir seeds", capsys)
    trained(
        f"{common} 30 --lr 1e-4..1e-1:log --widths 4,8,3;4,3 --init glorot_uniform,orthogonal --run-dir mixed", capsys
    )
    told = json.loads(run("inspect seeds --json", capsys))
    loss = gpubp.load("seeds").results["validation_loss"].to_numpy()  # type: ignore[index]
    assert told["distributions"]["validation_loss"]["median"] == pytest.approx(np.median(loss))
    assert told["effects"] == []
    text = run("inspect seeds", capsys)
    assert "12 networks that differ in their seed alone" in text
    assert "best settings" not in text
    told = json.loads(run("inspect mixed --by lr,hidden_width --json", capsys))
    assert told["distributions"] == {}
    assert {effect["name"] for effect in told["effects"]} >= {"lr", "widths", "init", "hidden_layers"}
    assert sum(group["networks"] for group in told["by"]) == 30
    assert {group["values"]["hidden_width"] for group in told["by"]} == {8, None}
    text = run("inspect mixed", capsys)
    assert re.search(r"validation_loss by lr: rank correlation [+-]0\.\d\d, explained \d+ %", text)
    only = run("inspect mixed --by lr,hidden_width", capsys)
    assert "median validation_loss by lr (down) and hidden_width (across)" in only
    assert only.count("*") == 1
    assert main(["inspect", "mixed", "--by", "lr, hidden_width"]) == 0
    assert capsys.readouterr().out == only
    assert "best of" not in only
    assert run("inspect mixed --by optimiser", capsys, 1) == ""


@pytest.mark.parametrize(
    ("flag", "name"),
    [("--epochs 1..10:log", "epochs"), pytest.param("--steps 5..45", "max_steps", marks=pytest.mark.slow),
     ("--design rows.csv --steps 20", "evaluate_every"), ("--init constant,normal --epochs 2", "init")],
)  # fmt: skip
def test_lengths_and_other_settings_of_a_design_have_effects(flag: str, name: str, capsys: Capture) -> None:
    many = 12
    if "--design" in flag:
        Path("rows.csv").write_text("evaluate_every\n" + "5\n10\n20\n" * 4)
    trained(f"--data iris --networks {many} {flag} --lr 0.003 --slots 7 --run-dir q", capsys)
    design = pyarrow.parquet.read_table("q/design.parquet")
    given = design["steps" if name == "max_steps" else name].to_pylist()
    told = json.loads(run("inspect q --json", capsys))
    assert [each["name"] for each in told["effects"]] == [name]
    assert {name} <= told["best"][0].keys()
    assert told["best"][0][name] == given[told["best"][0]["network"]]
    by = json.loads(run(f"inspect q --json --by {name}", capsys))["by"]
    assert sum(each["networks"] for each in by) == many
    assert not told["distributions"], "networks of different settings are no study of seeds"
    if name in ("epochs", "max_steps"):
        assert told["effects"][0]["correlation"] < -0.5, "longer trainings are better"
    assert name in run("inspect q", capsys)
    run("report q --out page.html", capsys)
    assert f'"{name}"' in Path("page.html").read_text()


def test_a_run_that_was_made_longer_has_its_new_lengths(capsys: Capture) -> None:
    trained("--data iris --networks 12 --epochs 2,4,8 --lr 0.003,0.03 --run-dir q", capsys)
    run("resume q --epochs 8", capsys)
    assert pyarrow.parquet.read_table("q/design.parquet")["epochs"].to_pylist() == [8] * 12
    assert [each["name"] for each in json.loads(run("inspect q --json", capsys))["effects"]] == ["lr"]


def test_an_entity_may_be_named_as_a_setting(capsys: Capture) -> None:
    rows = "\n".join(f"{n % 3},{n / 60},{n % 2}" for n in range(60))
    Path("some.csv").write_text(f"epochs,x,y\n{rows}")
    trained("--data some.csv --target y --per epochs --epochs 1,2 --networks 2 --run-dir q", capsys)
    assert {each["name"] for each in json.loads(run("inspect q --json", capsys))["effects"]} == {"epochs"}
    run("inspect q --by entity.epochs,epochs", capsys)


def test_networks_of_several_entities_are_no_seed_study_and_no_ensemble() -> None:
    inputs = torch.linspace(-1, 1, 40)[:, None]
    train, held_out = gpubp.Dataset(inputs, 3 * inputs).by({"shop": ["north", "south"] * 20}).split(0.3)
    design = [{"entity": n % 2, "seed": n // 2} for n in range(6)]
    result = gpubp.train_many(design, train, held_out, widths="1,1", epochs=2, batch_size=4, engine="eager")
    study = studies.Study(result.table)
    assert study.distributions() == {}
    assert [each["networks"] for each in study.settings(3)] == [6]
    assert len(result.ensemble(rows=[1, 3, 5])) == 3
    for chosen in ({"best": 6}, {"rows": [0, 1]}):
        with pytest.raises(ConfigError, match=r"of 2 entities, such as \{'shop': .*by their rows, expected"):
            result.ensemble(**chosen)
    alone = [each for each in design if each["entity"] == 1]
    result = gpubp.train_many(alone, train, held_out, widths="1,1", epochs=2, batch_size=4, engine="eager")
    assert studies.Study(result.table).distributions()["validation_loss"]["networks"] == 3


def test_tables_fit_80_columns(tmp_path: Path) -> None:
    study, _, loss = sweep()
    with (tmp_path / "screen").open("w", encoding="utf-8") as file:
        screen = Console(file=file, width=80)
        study_tables.effects(screen, study, 5)
        study_tables.effects(screen, studies.Study(results(loss=[1.0, 2.0, np.inf], lr=[1.0, 1.0, 9.0])), 1)
        study_tables.grouped(screen, study, study.by(["lr", "widths"]))
        folds = studies.Study(results(validation_loss=loss, fold=np.arange(len(loss))))
        study_tables.grouped(screen, folds, folds.by("fold"))
        entry = {"network": 1, **{f"a_name_of_a_column_{n}": 1.23456789e-5 for n in range(12)}}
        study_tables.networks(screen, {"best": [entry] * 7}, {"best": 7})
        study_tables.networks(screen, {"best": [entry], "worst": [entry]}, {"best": 1, "worst": 1})
        setting = {f"some_setting_{n}": 2.3456789e-5 for n in range(6)}
        study_tables.settings(screen, [{"networks": 3, **setting, "± some_setting_0": 1e-6}] * 4)
        alike = studies.Study(results(loss=loss / 1e9, r2=loss, validation_loss=loss / 1e9, validation_r2=loss))
        study_tables.distributions(screen, alike.distributions())
    text = (tmp_path / "screen").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search("…|nan", text), "no number is cut off, and a correlation with a constant is unknown"
    assert "best of 7, from 5" in text
    assert "worst" not in text, "which the best are"
    assert text.count("2.346e-05") == 6 * 4
    assert "100..200" in text, "the bounds of bins are not written as powers"
