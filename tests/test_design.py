"""A design, a row per network: each network is what it is alone, whatever trains beside it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.checkpoints import checkpoint
from gpubp.errors import ConfigError
from gpubp.runs import making

from .commands import Capture, columns, error, here, run, trained  # noqa: F401
from .helpers import alike, quick, same_bits, samples
from .short_runs import same_state, told

SHAPE = gpubp.NetworkSpec((3, 4), loss="cross_entropy")
FOLDS = [range(0, 30), range(10, 40), [*range(0, 10), *range(20, 50)]]
ROWS: list[dict[str, Any]] = [
    {"widths": "3,6,4", "optimizer": "adam", "lr": 0.01, "hidden": "relu"},
    {"widths": "3,6,4", "optimizer": "adam", "lr": 0.3, "hidden": "relu", "epochs": 9},
    {"widths": "3,6,4", "optimizer": "sgd", "lr": 0.5, "hidden": "relu", "dropout": 0.2},
    {"widths": "3,6,4", "optimizer": "adam", "lr": 0.02, "hidden": "relu", "seed": 90},
    {"widths": "3,5,5,4", "hidden": "tanh,relu", "batch_size": 16, "patience": 1, "lr": 0.2},
    {"widths": "3,5,5,4", "hidden": "tanh,relu", "batch_size": 16, "patience": 3, "lr": 0.2, "fold": 2},
    {"widths": "3,4", "optimizer": "momentum", "momentum": 0.5, "schedule": "cosine", "shuffle": "shared"},
    {"widths": "3,6,4", "optimizer": "sgd", "lr": 0.1, "hidden": "relu", "dropout": 0.4, "init": "orthogonal"},
    {"widths": "3,6,4", "optimizer": "sgd", "lr": 1e38, "hidden": "relu", "steps": 20},
]
IRIS = "--data iris --epochs 2"


def data(seed: int = 1, **more: Any) -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SHAPE, 50, dtype=torch.float32, seed=seed), **more)


def train(design: Any, given: gpubp.Dataset | None = None, **more: Any) -> gpubp.Result:
    chosen = {"loss": "cross_entropy", "epochs": 6, "batch_size": 8, "seed": 3, "engine": "eager"}
    given = data(rows=FOLDS) if given is None else given
    return gpubp.train_many(design, given, data(9), **{**chosen, **more})


def rows() -> list[dict[str, Any]]:
    """ROWS with what is their row's written out."""
    return [{"seed": number, "fold": number % 3, **row} for number, row in enumerate(ROWS)]


def same(one: gpubp.Result, other: gpubp.Result, history: bool = True) -> None:
    for mine, theirs in zip(one.states, other.states, strict=True):
        same_state(mine, theirs)
    assert repr(one.table.to_pydict()) == repr(other.table.to_pydict())
    assert not history or told(one) == told(other)


@pytest.mark.parametrize("engine", quick(["eager", "cpu"], ["eager"]))
def test_every_network_is_what_it_is_alone_and_stands_in_its_row(engine: str) -> None:
    some = [row for row in rows() if engine == "eager" or row["seed"] in (1, 4, 8)]
    result = train(some, engine=engine)
    assert len(result.populations.each) == (6 if engine == "eager" else 3), "rows that differ in numbers train together"
    assert result.table["network"].to_pylist() == list(range(len(some)))
    for number, row in enumerate(some):
        alone = train([row], engine=engine)
        assert same_bits(result.loss[number], alone.loss[0])
        assert result.status_names[number] == alone.status_names[0]
        assert alike(result.network(number), alone.network(0)), number
        known = result.table.slice(number, 1).to_pylist()[0]
        for name, value in alone.table.to_pylist()[0].items():
            assert name == "network" or repr(known[name]) == repr(value), name
    assert {"finished", "stopped", "diverged"} == set(result.status_names)


def test_networks_may_differ_in_nothing_but_their_seed() -> None:
    ten, three = train([{}] * 10, data(), widths="3,6,4"), train({"seed": [0, 5, 9]}, data(), widths=[3, 6, 4])
    for row, seed in enumerate((0, 5, 9)):
        assert same_bits(ten.population.params[seed], three.population.params[row])


def test_class_weights_and_hyper_parameters_of_custom_rules_are_settings_of_a_row() -> None:
    def scaled(grad: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor]:
        return (gain * grad,)

    rule = gpubp.maths.optimizers.Optimizer(scaled, (), {"gain": 1.0})
    weights = [[1.0, 2.0, 3.0, 4.0], [4.0, 1.0, 1.0, 1.0]]
    design = [{"optimizer": rule, "class_weight": "1,2,3,4"}, {"optimizer": rule, "class_weight": weights[1]}]
    mixed = train([{**row, "extra.gain": 0.5 + number} for number, row in enumerate(design)], data(), widths="3,6,4")
    config = gpubp.TrainConfig(rule, class_weight=weights, extra={"gain": [0.5, 1.5]}, epochs=6, batch_size=8)
    spec = gpubp.NetworkSpec((3, 6, 4), loss="cross_entropy")
    alone = gpubp.train(gpubp.Population.create(spec, 2, seed=3), data(), config, data(9), engine="eager")
    assert same_bits(mixed.population.params, alone.population.params)
    assert mixed.table["class_weight"].to_pylist() == ["1,2,3,4", "4,1,1,1"]
    common = train([{"optimizer": rule}], data(), widths="3,6,4", extra={"gain": 0.5}, class_weight=weights[0])
    assert same_bits(common.population.params[0], alone.population.params[0])


def test_each_length_extends_the_networks_that_count_so(tmp_path: Path) -> None:
    def design(epochs: int, steps: int) -> list[dict[str, Any]]:
        lengths = ({"epochs": epochs}, {"steps": steps}, {"epochs": epochs, "lr": 0.2}, {"steps": steps, "lr": 0.3})
        return [{"widths": "3,6,4", **length} for length in lengths]

    settings: dict[str, Any] = {"epochs": None, "evaluate_every": 1}
    train(design(3, 7), data(), run_dir=tmp_path / "run", **settings)
    steps = gpubp.resume(tmp_path / "run", data(), data(9), steps=9)
    same(steps, train(design(3, 9), data(), **settings), history=False)
    both = gpubp.resume(tmp_path / "run", data(), data(9), epochs=5, steps=11)
    same(both, train(design(5, 11), data(), **settings), history=False)
    with pytest.raises(ConfigError, match="steps 10 would end networks before their present end"):
        gpubp.resume(tmp_path / "run", data(), data(9), epochs=6, steps=10)
    same(gpubp.resume(tmp_path / "run", data(), data(9)), both, history=False)
    train(design(3, 7)[::2], data(), run_dir=tmp_path / "epochs", **settings)
    with pytest.raises(ConfigError, match="this run counts epochs: give only epochs to extend it"):
        gpubp.resume(tmp_path / "epochs", data(), data(9), epochs=6, steps=10)


def test_a_run_says_why_each_of_its_engines_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = making.choose_for_all

    def chosen(name: str, spec: gpubp.NetworkSpec, *rest: Any) -> Any:
        return choose(name, spec, *rest)._replace(reason=f"for {spec.widths[1]}")

    monkeypatch.setattr(making, "choose_for_all", chosen)
    train([{"widths": f"3,{hidden},4"} for hidden in (7, 5, 7)], data(), run_dir=tmp_path / "run")
    assert "engine_reason: for 7; for 5\n" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_command_line_trains_lists_of_topologies_and_optimizers(capsys: Capture) -> None:
    lists = "--widths=4,5,3;4,3,3,3 --optimizer=adam,momentum --momentum=0.5,0.9 --batch-size=60"
    trained(f"{IRIS} --networks 8 {lists} --run-dir run", capsys)
    run("resume run --epochs 3", capsys)
    found = json.loads(run("inspect run --top 8 --json", capsys))["best"]
    assert {(row["widths"], row["optimizer"], row["momentum"]) for row in found} == {
        (widths, optimizer, momentum if optimizer == "momentum" else None)
        for widths in ("4,5,3", "4,3,3,3") for optimizer in ("adam", "momentum") for momentum in (0.5, 0.9)
    }  # fmt: skip
    Path("two.csv").write_text('widths,lr,steps,restore_best\n"4,5,3",0.01,2,true\n"4,7,3",,,\n')
    trained("--data iris --design two.csv --lr 0.2 --steps 9 --run-dir designed", capsys)
    table = columns("designed")
    assert table["steps"][0] == 2
    assert table["lr"] == [0.01, 0.2]
    trained(f"{IRIS} --networks 4 --hidden-width 2..40:log --run-dir ranged", capsys)
    hidden = [int(widths.split(",")[1]) for widths in columns("ranged")["widths"]]
    assert len(set(hidden)) > 2
    assert 2 <= min(hidden) < max(hidden) <= 40
    for wrong in ("--momentum 0.5", "--widths 4,5,3 --hidden-width 5", "--widths 4,5,3;4,5",
                  "--design two.csv --networks 3", "--design none.csv", "--hidden relu;",
                  "--hidden-width 0..5", "--hidden-width 2.5,3", "--init x,y"):  # fmt: skip
        run(f"train {IRIS} --engine eager --run-dir wrong --optimizer adam,sgd {wrong}", capsys, 1)


def test_a_default_is_no_setting_of_a_slot_which_would_compute_with_it(capsys: Capture) -> None:
    trained(f"{IRIS} --networks 4 --lr 0.01..0.1 --slots 2 --run-dir run", capsys)
    trained("--config run/config.yaml --run-dir again", capsys)
    for name in ("run", "again"):
        assert not {"weight_decay", "beta1", "warmup", "l1", "dropout", "min_delta"} & {*columns(name, "design")}
        hyper = checkpoint.load(Path(name), torch.device("cpu")).populations[0].state.recipe.hyper
        assert not {"weight_decay", "warmup", "l1", "dropout", "label_smoothing"} & {*hyper}


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--momentum 0.5", "optimizer momentum, nesterov"),
        ("--step-size 5", "schedule step"),
        ("--delta 2", "loss huber"),
        ("--loss mean_absolute_error --task regression --class-weight balanced", "loss cross_entropy"),
    ],
)
def test_a_flag_that_no_network_takes_says_for_what_it_is(flag: str, told: str, capsys: Capture) -> None:
    data, name = ("diabetes", "--class-weight") if "class" in flag else ("iris", flag.split()[0])
    found = error(f"train --data {data} --epochs 2 --engine eager {flag}", capsys).splitlines()[-1]
    assert found == f"error: {name}: no network takes it; for {told}"


def test_a_design_and_flags_have_one_precedence_and_no_cell_is_dropped(capsys: Capture) -> None:
    tables = {"mixed": "optimizer,momentum,lr\nmomentum,0.5,0.1\nadam,,\nmomentum,,\n",
              "wrong": "optimizer,momentum\nmomentum,0.5\nadam,0.5\n", "loss": "loss\nmse\n",
              "ends": 'widths\n"4,5,3"\n"5,5,3"\n', "own": "lr\n0.1\n0.2\n"}  # fmt: skip
    for name, text in tables.items():
        Path(f"{name}.csv").write_text(text)
    trained(f"{IRIS} --design mixed.csv --momentum 0.7 --lr 0.2 --class-weight 1,2,1 --run-dir mixed", capsys)
    assert columns("mixed")["momentum"] == [0.5, None, 0.7]
    assert columns("mixed")["lr"] == [0.1, 0.2, 0.2]
    assert columns("mixed", "design")["class_weight"] == ["1.0,2.0,1.0"] * 3
    for message, given in (
        ("design: row 1: momentum is not a hyper-parameter of optimizer 'adam'", "--design wrong.csv"),
        ("design: row 0: loss 'mse' is unknown", "--design loss.csv --momentum 0.5"),
        ("design: row 1: widths 5,5,3: the data need 4,...,3", "--design ends.csv"),
        ("--lr: no network takes it; all have a cell of their own", "--design own.csv --lr 0.5"),
        ("--lr 0.1,0.2: with --design one value", "--design mixed.csv --lr 0.1,0.2"),
        ("--optimizer adam,sgd: with --design one value", "--design own.csv --optimizer adam,sgd"),
        ("--class-weight 'x': numbers separated by commas", "--design own.csv --class-weight x"),
        ("--folds 3: --data tutorial does not have it", "--folds 3 --data tutorial"),
        ("widths 4,2,4: the data need 4,...,3", "--widths 4,2,4"),  # of rows that nobody has written
        ("hidden activation of layer 1 'mse' is unknown", "--hidden mse"),
    ):
        assert error(f"train {IRIS} --engine eager {given}", capsys).splitlines()[-1].startswith(f"error: {message}")


def test_the_design_of_a_run_with_folds_trains_again_to_the_same_networks(capsys: Capture) -> None:
    trained(f"{IRIS} --folds 3 --networks 2 --lr 0.01,0.1 --class-weight 1,2,1 --run-dir run", capsys)
    again = f"{IRIS} --design run/design.parquet --run-dir again"
    Path("some.csv").write_text("lr,fold\n0.1,0\n0.1,\n")
    for message, given in (
        ("design: row 0: fold 0: the data are the same for all networks; data.folds(k), or on the command line", ""),
        ("design: row 2: fold 2: the data have 2, from 0 to 1", "--folds 2"),
        ("--folds 3: row 1 of the design has no fold, but others have", "--folds 3 --design some.csv"),
    ):
        assert error(f"train {again} {given}", capsys).splitlines()[-1].startswith(f"error: {message}")
    trained(f"{again} --folds 3", capsys)
    assert columns("again") == columns("run")


def test_explain_shows_the_row_that_load_restores(capsys: Capture) -> None:
    flags = "--epochs 9 --lr 2,9 --batch-size 4 --networks 2 --restore-best true --widths 4,3 --run-dir run"
    trained(f"--data iris {flags}", capsys)
    saved = checkpoint.load(Path("run"), torch.device("cpu")).populations[0].state
    best = gpubp.load("run").population.params
    assert not torch.equal(best, saved.population.params), "some network's best row is not its last"
    for row in (0, 1):
        (layer,) = json.loads(run(f"explain run --network {row} --json", capsys))["layers"]
        shown = torch.tensor(layer["weight"]["value"])
        assert torch.equal(shown.T, best[row, :12].reshape(4, 3))
    assert "network 2: a row from 0 to 1 of the results expected" in error("explain run --network 2", capsys)
