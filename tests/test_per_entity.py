"""A network per entity and per fold, from a file to predictions: scaling is that of the samples it trains on."""

import csv
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

import gpubp
from gpubp.cli import main
from gpubp.errors import ConfigError, DataError
from gpubp.raw.preparation import Preparation

from .commands import Capture, columns, error, here, run, trained  # noqa: F401
from .helpers import covering, same_bits
from .reports import page_of
from .short_runs import Crash

SHOPS = {"north": (40, 3.0, 100.0), "south": (25, -2.0, 0.0), "east": (61, 0.5, -7.0), "tiny": (2, 0.0, 0.0)}
HEAD = "shop,day,price,kind,sold\n"


def lines(shop: str) -> list[str]:
    """Sales of a shop, whose prices have a scale of their own."""
    count, slope, base = SHOPS[shop]
    source = np.random.default_rng(count)
    price = base + slope * source.uniform(0, 9, count)
    sold = 10 * price + source.normal(0, 0.1, count)
    return [f"{shop},{n % 7},{a:.4f},{'ab'[n % 2]},{b:.4f}\n" for n, (a, b) in enumerate(zip(price, sold))]


def write(*shops: str, name: str = "sales.csv") -> str:
    rows = [line for shop in shops for line in lines(shop)]
    order = np.random.default_rng(0).permutation(len(rows)) if len(shops) > 1 else range(len(rows))
    Path(name).write_text(HEAD + "".join(rows[at] for at in sorted(order, key=lambda at: (at * 7) % 5)))
    return name


def test_an_entity_has_the_scaling_and_the_samples_that_it_has_alone() -> None:
    common: dict[str, Any] = {"target": "sold", "scale_targets": "standard", "seed": 4}
    whole = gpubp.load_data(write(*SHOPS), per="shop", min_samples=5, **common)
    assert whole.preparation.entities.values == (("east", "north", "south"),)
    assert "left out, with fewer than 5 samples: 1 entity (tiny)" in whole.about
    assert "sales.csv: 128 samples, 101 for training, 25 held out" in whole.about
    rows = Path("sales.csv").read_text().splitlines(keepends=True)[1:]
    for position, shop in enumerate(("east", "north", "south")):
        Path("one.csv").write_text(HEAD + "".join(row for row in rows if row.startswith(shop)))
        alone = gpubp.load_data("one.csv", per="shop", **common)
        for side, own in ((whole.training, alone.training), (whole.validation, alone.validation)):
            assert same_bits(side.inputs[side.parts[position]], own.inputs)
            assert same_bits(side.targets[side.parts[position]], own.targets)
        train = alone.training
        torch.testing.assert_close(train.inputs[:, :2].mean(0), torch.zeros(2, dtype=torch.float64))
        torch.testing.assert_close(train.targets.std(0, correction=0), torch.ones(1, dtype=torch.float64))
        assert whole.preparation.at(position).columns[0] == alone.preparation.at(0).columns[0]
    again = Preparation.from_dict(json.loads(json.dumps(whole.preparation.to_dict())))
    assert again == whole.preparation


def test_a_column_that_is_constant_in_an_entity_has_the_factor_of_all() -> None:
    rows = [
        f"{who},{value},{n}\n" for who, first in (("a", 5), ("b", None)) for n in range(8) for value in [first or n]
    ]
    Path("t.csv").write_text("who,x,y\n" + "".join(rows))
    data = gpubp.load_data("t.csv", "y", task="regression", per="who", validation=0)
    numbers = [5.0] * 8 + [*map(float, range(8))]
    assert data.preparation.columns[0].offset == (5.0, 3.5)
    assert data.preparation.columns[0].factor == (float(np.std(numbers)), float(np.std(range(8))))
    assert data.validation is None


def test_what_a_fold_holds_out_does_not_change_what_its_network_sees() -> None:
    text = write("east")
    before = gpubp.load_data(text, "sold", folds=4, scale_targets="standard")
    rows = Path(text).read_text().splitlines(keepends=True)
    plain = gpubp.load_data(text, "sold", folds=4, scale="none")
    lost = plain.validation.parts[2].tolist()
    for at in lost:
        shop, day, _, kind, _ = rows[1 + at].split(",")
        rows[1 + at] = f"{shop},{day},1e6,{kind},-1e6\n"
    Path(text).write_text("".join(rows))
    after = gpubp.load_data(text, "sold", folds=4, scale_targets="standard")
    for fold in range(4):
        mine, theirs = ((each.training.inputs[each.training.parts[fold]]) for each in (before, after))
        assert same_bits(mine, theirs) == (fold == 2)
    mine = before.training.inputs[before.training.parts[2]]
    numbers = [place for place, each in enumerate(before.preparation.columns) if each.categories is None]
    torch.testing.assert_close(mine[:, numbers].mean(0), torch.zeros(len(numbers), dtype=torch.float64))
    assert plain.training.samples == 61, "nothing is fitted, so folds share the samples"


def test_a_run_per_entity_answers_each_row_by_its_entitys_best_network(capsys: Capture) -> None:
    write(*SHOPS)
    settings = "--data sales.csv --target sold --per shop --min-samples 5 --networks 3 --lr 0.003,0.03,0.1 --epochs 40"
    trained(f"{settings} --scale-targets standard --run-dir made", capsys)
    found = columns("made")
    assert found["shop"] == ["east", "north", "south"] * 3
    assert found["id"] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    rows = [line.strip().split(",") for shop in SHOPS for line in lines(shop)] + [["west", "1", "2.0", "a", "0"]]
    Path("new.csv").write_text(HEAD + "".join(",".join(row) + "\n" for row in rows))
    capsys.readouterr()
    assert main(["predict", "made", "--data", "new.csv"]) == 0
    told = capsys.readouterr()
    assert "3 of 129 samples, of 2 entities (tiny, west), have no network for their shop" in told.err
    read = [cell for (cell,) in csv.reader(told.out.splitlines())][1:]
    assert [number for number, each in enumerate(read) if each == ""] == [126, 127, 128]
    model, given = gpubp.load("made"), [dict(zip(HEAD.strip().split(","), row)) for row in rows]
    for row in given:
        row |= {"day": int(row["day"]), "price": float(row["price"])}
    with pytest.warns(UserWarning, match="3 of 129 samples"):
        predicted = model.predict(given)
    assert np.isnan(predicted[126:]).all()
    for name in ("east", "north", "south"):
        mine = [number for number, shop in enumerate(found["shop"]) if shop == name]
        ranked = sorted(mine, key=lambda number: found["validation_loss"][number])
        at = [number for number, row in enumerate(rows) if row[0] == name]
        some = [given[number] for number in at]
        raw = [[row["day"], row["price"], "ab".index(row["kind"])] for row in some]
        said = [
            model.network(number)(torch.tensor(raw, dtype=torch.float64)).detach()[:, 0].numpy() for number in ranked
        ]
        np.testing.assert_allclose(predicted[at], said[0], rtol=1e-5)
        np.testing.assert_allclose(predicted[at], [float(read[number]) for number in at])
        np.testing.assert_allclose(model.predict(some, 2), (said[0] + said[1]) / 2, rtol=1e-5)
        np.testing.assert_allclose(model.predict(some, [mine[0]]), said[ranked.index(mine[0])], rtol=1e-5)
        np.testing.assert_allclose(predicted[at], [10 * row["price"] for row in some], atol=12)
        assert np.array_equal(model.predict(some[:3]), predicted[at[:3]]), "the other samples change no bit"
    with pytest.raises(ConfigError, match="each: a sample is answered"):
        model.predict(given, "all", each=True)
    assert "predict without --spread, answers a sample by its" in error("predict made --data new.csv --spread", capsys)
    shown = json.loads(run("inspect made --json", capsys))
    assert shown["best"][0]["shop"] == found["shop"][shown["best"][0]["network"]]
    assert sorted(each["networks"] for each in shown["settings"]) == [3, 3, 3], "a setting over its entities"
    assert main(["resume", "made", "--epochs", "41"]) == 0
    assert columns("made")["shop"] == found["shop"]


# keys in a file, their names, keys that are asked for, and which of these have no network
KEYS: list[tuple[str, list[Any], list[Any], list[int]]] = [
    ("007 7 12", ["007", "12", "7"], ["007", "7", "07", "12"], [2]),  # two that would be one
    ("007 7 12", ["007", "12", "7"], [7, 12, 7, 8], [3]),
    ("007 008 12", ["007", "008", "12"], ["007", "7", "8.0", "9"], [3]),
    ("007 008 12", ["007", "008", "12"], [7, 8.0, None, 12], [2]),
    ("1 2 10", [1, 2, 10], ["1", "02", "x", " 10"], [2]),
    ("1.0 2 10.", [1, 2, 10], [1, 2, 10.0, "2"], []),
    ("12345678901234567890 12345678901234567891 5", ["12345678901234567890", "12345678901234567891", "5"],
     ["12345678901234567890", "12345678901234567891", "5", "6"], [3]),
    ("$7 $8 $9", ["$7", "$8", "$9"], ["$7", "8", "$9", "x"], [3]),
    ("1 2", [1, 2], ["1", "2.0", "x", ""], [2, 3]),  # which make the column one of texts
    ("1 2", [1, 2], ["1", " 2", "01", "2"], []),
    ("1 a", ["1", "a"], [1, 2, 1, 1], [1]),
    ("1 a", ["1", "a"], [1.0, 1.5, None, 1], [1, 2]),
    ("01 a", ["01", "a"], [1, 1, 1, 1], [0, 1, 2, 3]),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "kind"), covering(KEYS, ["csv", "parquet"], meet=1))
def test_keys_of_a_file_are_named_as_they_are_written(keys: Any, kind: str, capsys: Capture) -> None:
    trained_on, names, given, silent = keys
    lines = "k,x,y\n" + "".join(f"{k},{n},{2 * n}\n" for n, k in enumerate(2 * trained_on.split()))
    Path("data.csv").write_text(lines)
    rows = [line.split(",") for line in lines.split()[1:]]
    held = {"k": [k for k, _, _ in rows], "x": [float(x) for _, x, _ in rows], "y": [float(y) for _, _, y in rows]}
    pyarrow.parquet.write_table(pyarrow.table(held), "data.parquet")
    trained(f"--data data.{kind} --target y --per k --validation 0 --epochs 1 --run-dir made", capsys)
    assert columns("made")["k"] == names
    about = " ".join(gpubp.load_data(f"data.{kind}", "y", per="k", validation=0).about)
    assert ("k as it is written, as " in about) == (isinstance(names[0], str) and "a" not in names), "but a text"
    texts = [each if each is None or isinstance(each, str) else f"{each:g}" for each in given]
    table = {"k": texts, "x": [0.0, 1.0, 2.0, 3.0]}
    Path("new.csv").write_text("k,x\n" + "".join(f"{k or ''},{x}\n" for k, x in zip(*table.values())))
    kinds = {isinstance(each, str) for each in given if each is not None}
    model = gpubp.load("made")
    for samples in (table if len(kinds) == 2 else {**table, "k": given}, "new.csv"):
        with pytest.warns(UserWarning, match=f"{len(silent)} of 4 samples") if silent else nullcontext():
            found = model.predict(samples)
        assert np.isnan(found).nonzero()[0].tolist() == silent
    assert main(["resume", "made", "--epochs", "2"]) == 0
    assert columns("made")["k"] == names


def test_groups_whose_names_would_be_one_number_are_two(capsys: Capture) -> None:
    Path("data.csv").write_text("g,x,y\n" + "".join(f"{['007', '7'][n % 2]},{n},{2 * n}\n" for n in range(8)))
    trained("--data data.csv --target y --group g --epochs 1 --run-dir made --folds 2", capsys)
    assert "g as it is written, as 007 would be 7" in " ".join(
        gpubp.load_data("data.csv", "y", folds=2, group="g").about
    )


def test_labels_without_a_network_are_missing_and_a_clashing_key_is_quoted(capsys: Capture) -> None:
    source = np.random.default_rng(2)
    points = source.uniform(-1, 1, (90, 2))
    Path("t.csv").write_text(
        "loss,x,y,class\n"
        + "".join(
            f"{n % 3},{x:.3f},{y:.3f},{'up' if y * (1 - n % 3) > 0 else 'down'}\n" for n, (x, y) in enumerate(points)
        )
    )
    trained("--data t.csv --target class --per loss --epochs 20 --lr 0.1 --batch-size 8 --run-dir made", capsys)
    assert columns("made")["entity.loss"] == [0, 1, 2]
    model = gpubp.load("made")
    samples = {"loss": [2, 0, None, 7, 0], "x": [0.1] * 5, "y": [-0.5, 0.5, 0.5, 0.5, -0.5]}
    with pytest.warns(UserWarning, match=r"2 of 5 samples, of 2 entities \(missing, 7\)"):
        assert model.predict(samples).tolist() == ["up", "up", None, None, "down"]
    with pytest.warns(UserWarning, match="2 of 5 samples"):
        chances = model.predict_proba(samples)
    assert np.isnan(chances[2:4]).all()
    np.testing.assert_allclose(chances[[0, 1, 4]].sum(1), 1)
    with pytest.raises(DataError, match="column 'loss' is missing"):
        model.predict({"x": [1.0], "y": [1.0]})


def test_networks_of_a_fold_predict_with_the_scaling_of_their_fold(capsys: Capture) -> None:
    write("east")
    common = "--data sales.csv --target sold --drop shop --epochs 10 --lr 0.03"
    trained(f"{common} --networks 1 --folds 3 --scale-targets standard --run-dir made", capsys)
    model, data = gpubp.load("made"), gpubp.load_data("sales.csv", "sold", folds=3, scale_targets="standard")
    raw = [[float(row.split(",")[1]), float(row.split(",")[2]), "ab".index(row.split(",")[3])] for row in lines("east")]
    samples = {
        "day": [row[0] for row in raw],
        "price": [row[1] for row in raw],
        "kind": ["ab"[int(row[2])] for row in raw],
    }
    each = model.predict(samples, "all", each=True)
    for number, row in enumerate(model.ranking().tolist()):
        said = model.network(row)(torch.tensor(raw, dtype=torch.float64)).detach()[:, 0]
        np.testing.assert_allclose(each[number], said, rtol=1e-4, atol=1e-3)
        inputs = model.inputs(samples, row=row)
        assert inputs.shape[1] == data.training.inputs.shape[1] - 1  # `shop` is one more there
    np.testing.assert_allclose(model.predict(samples, "all"), each.mean(0), rtol=1e-6)
    with pytest.raises(DataError, match="scaling differs between 3 folds or entities"):
        model.inputs(samples)


def test_groups_stay_together_and_bootstraps_validate_on_what_they_did_not_draw(capsys: Capture) -> None:
    write("north", "south", "east")
    common = "--data sales.csv --target sold --steps 3 --networks 2"
    trained(f"{common} --folds 3 --group day --run-dir folded", capsys)
    assert columns("folded")["fold"] == [0, 1, 2] * 2
    data = gpubp.load_data("sales.csv", "sold", folds=3, group="day", scale="none")
    day = np.array([row.split(",")[1] for row in Path("sales.csv").read_text().splitlines()[1:]])
    for mine, theirs in zip(data.training.parts, data.validation.parts):
        assert not {*day[mine]} & {*day[theirs]}
    assert "day" not in [column.name for column in data.preparation.columns]
    trained(f"{common} --bootstrap 4 --run-dir drawn", capsys)
    assert columns("drawn")["fold"] == [0, 1, 2, 3] * 2
    drawn = gpubp.load_data("sales.csv", "sold", bootstrap=4)
    for mine, theirs in zip(drawn.training.parts, drawn.validation.parts):
        assert {*mine.tolist()}.isdisjoint(theirs.tolist())
        assert len(mine) == 126
    assert main(["resume", "drawn", "--steps", "4"]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--per shop --folds 3", "per and folds: one of them expected"),
        ("--bootstrap 3 --folds 3", "folds and bootstrap: one of them expected"),
        ("--group shop", "group 'shop': only with folds"),
        ("--min-samples 3", "min_samples 3: only with per"),
        ("--bootstrap 3 --validation 0.2", "validation 0.2 and bootstrap 3: one of them expected"),
        ("--per shops", "column 'shops' is missing; did you mean 'shop'?"),
        ("--per sold", "column 'sold' is a target"),
        ("--per price", "sales.csv: key column 'price' is float"),
        ("--per shop", "sales.csv: validation 0.2: of 1 entity (tiny) no sample, or every one, would be held out"),
        ("--per shop", "larger ones expected: min_samples (--min-samples) leaves smaller ones out"),
        ("--per shop --min-samples 99", "sales.csv: 4 entities (east, north, south, tiny) of 4: fewer than 99 samples"),
        ("--per shop --min-samples 99", "2 or more: min_samples of 61 or fewer expected"),
        ("--group shop --folds 2 --data lost.csv --target sold", "lost.csv: column 'shop' lacks 1 of 4 values"),
        (
            "--per shop,day,kind --drop price --validation 0",
            "every column is a target or one of shop, day, kind, or left out; one or more",
        ),
        ("--data iris --per class", "column 'class' is missing"),
        ("--data tutorial --per a", "--per a: --data tutorial does not have it"),
    ],
)
def test_divisions_that_cannot_be_are_refused(arguments: str, told: str, capsys: Capture) -> None:
    write(*SHOPS)
    Path("lost.csv").write_text("shop,price,sold\na,1,2\n,2,3\nb,3,5\nb,4,8\n")
    given = "" if "--data" in arguments else "--data sales.csv --target sold"
    assert told in error(f"train {given} {arguments} --steps 1 --engine eager --run-dir made", capsys)
    assert not Path("made").exists()


def test_a_report_of_a_run_that_crashed_names_the_entities(tmp_path: Path) -> None:
    data = gpubp.load_data("diabetes", per=["sex"])
    design = [{"lr": 0.01 * (1 + at), "entity": at % 2} for at in range(8)]
    with pytest.raises(RuntimeError):
        gpubp.train_many(
            design, data.training, data.validation, loss=data.loss, widths=f"{data.widths_in},{data.widths_out}",
            epochs=6, engine="eager", reporters=[Crash(4)], run_dir=tmp_path / "run", evaluate_every=1,
        )  # fmt: skip
    page = page_of(tmp_path / "run")
    best = page[page.index("best of 8") : page.index("worst of 8")]
    assert ">sex</th>" in best
    assert ">r2</th>" not in best, "which no evaluation leaves in a file"
