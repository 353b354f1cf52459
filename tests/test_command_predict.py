"""gpubp predict, of runs that gpubp train made of files."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpubp
from gpubp.cli import main

from .commands import Capture, columns, error, here, run, trained  # noqa: F401


def table() -> str:
    """A table of which class is in which place, for predictions: a circle and what is around it."""
    points = np.random.default_rng(3).uniform(-1, 1, (80, 2))
    names = np.where((points**2).sum(1) < 0.5, "inside", "outside")
    return "x,y,where\n" + "".join(f"{x:.6f},{y:.6f},{name}\n" for (x, y), name in zip(points, names))


def test_a_file_with_classes_of_text_goes_from_training_to_prediction(capsys: Capture) -> None:
    Path("table.csv").write_text(table())
    settings = "--data table.csv --target where --networks 6 --epochs 30 --lr 0.04 --batch-size 8"
    assert trained(f"{settings} --run-dir made", capsys)["metric"]["best"] > 0.8
    expected = [line.split(",")[2] for line in table().splitlines()[1:]]
    Path("new.csv").write_text("".join(line.rpartition(",")[0] + "\n" for line in table().splitlines()))
    found = {}
    for which in ("best", "3", "all", "all --each", "3 --proba", "2e0 --proba --each"):
        rows = list(csv.DictReader(io.StringIO(run(f"predict made --data new.csv --networks {which}", capsys))))
        assert len(rows) == 80
        found[which] = rows
    for which in ("best", "3", "all"):
        right = [row["prediction"] == name for row, name in zip(found[which], expected)]
        assert sum(right) > 0.8 * 80
    assert sorted(found["all --each"][0]) == [f"network_{n}" for n in range(6)]
    loss = columns("made")["validation_loss"]
    best, second = (f"network_{loss.index(each)}" for each in sorted(loss)[:2])
    assert [row[best] for row in found["all --each"]] == [row["prediction"] for row in found["best"]]
    assert list(found["3 --proba"][0]) == ["probability_inside", "probability_outside"]
    for row, label in zip(found["3 --proba"], found["3"]):
        inside, outside = map(float, row.values())
        assert inside + outside == pytest.approx(1)
        assert label["prediction"] == ("inside" if inside > outside else "outside")
    names = [f"{network}_{place}" for network in (best, second) for place in ("inside", "outside")]
    assert list(found["2e0 --proba --each"][0]) == names
    assert run("predict made --data new.csv --output out.csv", capsys) == ""
    assert list(csv.DictReader(io.StringIO(Path("out.csv").read_text()))) == found["best"]
    model = gpubp.load("made")
    ours = [row["network_4"] for row in found["all --each"]]
    assert run("predict made --data new.csv --rows 4", capsys).splitlines()[1:] == [f'"{each}"' for each in ours]
    head = run("predict made --data new.csv --rows 4,1 --each", capsys).splitlines()[0]
    assert head == '"network_4","network_1"'
    assert model.predict("new.csv", 3).tolist() == [row["prediction"] for row in found["3"]]


def test_data_by_name_are_predicted_as_a_file_of_them(capsys: Capture) -> None:
    trained("--data wine --networks 2 --steps 3 --run-dir made", capsys)
    found = list(csv.DictReader(io.StringIO(run("predict made --data wine --keep target,proline", capsys))))
    wines = gpubp.samples.sources.SOURCES["wine"].table().columns
    assert [row["prediction"] for row in found] == gpubp.load("made").predict(wines).tolist()
    for name in ("target", "proline"):
        assert [row[name] for row in found] == [f"{cell:g}" if name == "proline" else cell for cell in wines[name]]
    assert "iris: column 'alcohol' is missing" in error("predict made --data iris", capsys)
    assert "data 'wien' is unknown; did you mean 'wine'?" in error("predict made --data wien", capsys)


def test_predict_refuses_other_columns_and_files_that_are_there(capsys: Capture) -> None:
    Path("table.csv").write_text(table())
    Path("wrong.csv").write_text("x,z\n0.1,0.2\n")
    Path("large.csv").write_text("x,y\n0.1,0.2\n3.4e300,0\n")
    trained("--data table.csv --target where --scale none --networks 2 --steps 3 --run-dir made", capsys)
    for arguments, reason in (
        ("--data wrong.csv", "column 'y' is missing"),
        ("--data table.csv --networks 0", "--networks '0': best, all, or a number of 1 or more expected"),
        ("--data table.csv --rows 2", "network 2: a row from 0 to 1"),
        ("--data table.csv --rows 1,x", "--rows '1,x': whole numbers of 0 or more, separated by commas, expected"),
        ("--data table.csv --rows 1 --networks 2", "--networks and --rows: one of them expected"),
        ("--data table.csv --output wrong.csv", "wrong.csv exists already; name a new file"),
        ("--data large.csv", "column 'x' becomes 3.4e+300 in sample 1, one of 1 numbers that are not finite"),
    ):
        assert reason in error(f"predict made {arguments}", capsys)
    assert Path("wrong.csv").read_text() == "x,z\n0.1,0.2\n"


def test_predictions_keep_columns_of_the_file_as_they_are_written(capsys: Capture) -> None:
    rows = "".join(f"{n:03},{n % 28 + 1:02}.01.2024,{n / 7:.3f},{'ab'[n % 2]},{n * 1.5}\n" for n in range(200))
    Path("table.csv").write_text("id,day,x,kind,y\n" + rows)
    flags = "--target y --drop id --dates day --networks 3 --steps 3 --run-dir made"
    trained(f"--data table.csv {flags}", capsys)
    alone = run("predict made --data table.csv", capsys).splitlines()
    together = list(csv.reader(run("predict made --data table.csv --keep id,x,day,kind,y", capsys).splitlines()))
    assert together[0] == ["id", "x", "day", "kind", "y", "prediction"]
    for row, line, prediction in zip(together[1:], rows.splitlines(), alone[1:], strict=True):
        number, day, x, kind, y = line.split(",")
        assert row == [number, x, day, kind, y, prediction]
    for more in ("--each", "--spread", "--networks 2"):
        run(f"predict made --data table.csv {more} --keep id --output {more[2:6]}.csv", capsys)
        kept, given = Path(f"{more[2:6]}.csv").read_text(), run(f"predict made --data table.csv {more}", capsys)
        assert [line.partition(",")[2] for line in kept.splitlines()] == given.splitlines()
        assert [line.partition(",")[0].strip('"') for line in kept.splitlines()][1:] == [f"{n:03}" for n in range(200)]
    Path("named.csv").write_text("prediction," + Path("table.csv").read_text().replace("\n", "\n1,").rstrip("1,"))
    for arguments, reason in (
        ("--data table.csv --keep idd", "table.csv: column 'idd' is missing; did you mean 'id'?"),
        ("--data named.csv --keep prediction", "--keep prediction: so is a column of predictions called"),
        ("--data table.csv --output out.npz", "--output out.npz: a name that ends in .csv expected"),
    ):
        assert main(["predict", "made", *arguments.split()]) == 1
        assert reason in capsys.readouterr().err
    assert not Path("out.npz").exists()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predictions_ignore_what_other_columns_hold_and_keep_it(capsys: Capture, ending: str) -> None:
    samples = pd.DataFrame(
        {"x": np.arange(40) / 40, "y": np.arange(40) % 3 * 1.5, "code": ["NA", "null", "007", "b"] * 10}
    )
    samples["day"] = pd.date_range("2024-01-01", periods=40).date
    file = f"table.{ending}"
    samples.to_csv(file, index=False) if ending == "csv" else samples.to_parquet(file, index=False)
    trained(f"--data {file} --target y --drop code,day --networks 2 --steps 3 --run-dir made", capsys)
    alone = run(f"predict made --data {file}", capsys).splitlines()[1:]
    head, *rows = csv.reader(run(f"predict made --data {file} --keep code,day", capsys).splitlines())
    assert head == ["code", "day", "prediction"]
    assert rows == [[*map(str, kept), own] for *kept, own in zip(samples["code"], samples["day"], alone, strict=True)]
    pq.write_table(pa.table({"x": [0.1], "lists": [[1]]}), "lists.parquet")
    assert "column 'lists' holds list<" in error("predict made --data lists.parquet --keep lists", capsys)
    Path("lists.txt").touch()
    assert "lists.txt: columns of a .csv, .tsv or .parquet file" in error(
        "predict made --data lists.txt --keep a", capsys
    )


def test_several_targets_are_predicted_by_their_names(capsys: Capture) -> None:
    Path("two.csv").write_text("a,p,q\n" + "".join(f"{n}.5,{n + 1},{n - 1}\n" for n in range(20)))
    Path("new.csv").write_text("a\n-1\n0\n1\n")
    trained("--data two.csv --target p,q --networks 2 --steps 2 --run-dir two", capsys)
    for flags, names in (("", '"prediction_p","prediction_q"'), ("--each --networks 1", '"network_0_p","network_0_q"')):
        head = run(f"predict two --data new.csv {flags}", capsys).split()[0]
        assert head == names.replace("network_0", f"network_{int(gpubp.load('two').ranking()[0])}")


def test_a_file_with_local_formats_goes_from_training_to_prediction_and_the_run_reports_its_reading(
    capsys: Capture,
) -> None:
    rows = "".join(f"{n % 28 + 1:02}.{n % 12 + 1:02}.2021;{n},5;{'abc'[n % 3]};{'uv'[n % 2]};{n}\n" for n in range(60))
    Path("sales.csv").write_text("day;size;shop;kind;id\n" + rows, encoding="utf-16")
    settings = "--networks 2 --steps 3 --data sales.csv --target kind --run-dir made --tensorboard false --device cpu"
    flags = "--dates day --decimal , --drop id --batch-size 500 --engine eager --json"
    assert main(f"train {settings} {flags}".split()) == 0
    told = capsys.readouterr()
    assert [line[:1] for line in told.out.splitlines()] == ["{"]
    assert told.err.splitlines()[:5] == [
        "sales.csv: 60 samples, 48 for training, 12 held out",
        "read: encoding utf-16; delimiter ';'; day in days since 1970, dates as %d.%m.%Y; id left out",
        "5 inputs; numbers, scale standard: day, size; texts, an input per category: shop (3)",
        "target: kind; task: classification, 2 classes (u, v); loss: cross_entropy, as kind holds text",
        "batch_size 500 is more than the 48 samples: every batch has all of them",
    ]
    Path("new.csv").write_text("shop\tday\tsize\na\t05.03.2021\t5,5\nb\t06.03.2021\t900,5\n")
    assert main(["predict", "made", "--data", "new.csv"]) == 0
    told = capsys.readouterr()
    assert (len(told.out.splitlines()), told.err) == (3, "")
    Path("new.csv").write_text("shop\tday\tsize\na\t05.03.2021\t905,5\nb\t06.03.2021\t900,5\n")
    assert error("predict made --data new.csv", capsys, 0) == (
        "warning: new.csv: column 'size' holds 900.5 to 905.5, in training 1.5 to 58.5; are the units the same?\n"
    )
