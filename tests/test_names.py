"""Names from elsewhere, of columns, classes, files and runs, are plain text wherever they go: terminal, TensorBoard,
pages, CSV, a shell's line. And what is one is not called several."""

import csv
import html
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import gpubp
from gpubp.cli import main
from gpubp.line import line, shown
from gpubp.raw.tables import write_csv
from gpubp.reporters.tensorboard import _cell

from .test_tensorboard import points, text

ESCAPE = "\x1b[31m\u202e\u3164"  # a colour, the other direction, and a letter that nobody sees
COLUMNS = ["[/b]a|b*_c_<i>", f"{ESCAPE}red :star:"]
TARGET = "=cmd|' /C calc'!A0"
CLASSES = ["=evil()", f"\x1b]0;title\x07{ESCAPE}[/x]"]
RUN = f"a[b]{ESCAPE} :star: c"


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Both outputs of a training on such names, in a directory of such a name."""
    monkeypatch.chdir(tmp_path)
    with Path("data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [[*COLUMNS, TARGET], *([n % 7, ["plain", f"{ESCAPE}x"][n % 3 > 0], CLASSES[n % 2]] for n in range(40))]
        )
    arguments = f"train --data data.csv --networks 2 --steps 20 --evaluate-every 10 --engine eager --target={TARGET}"
    assert main([*arguments.split(" ", 11), "--run-dir", RUN]) == 0
    told = capsys.readouterr()
    assert shlex.split(told.out.splitlines()[-1].partition("look: ")[2]) == ["gpubp", "inspect", line(RUN)]
    return told.out + told.err


def test_a_terminal_shows_every_name_and_none_moves_its_cursor(
    ran: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*COLUMNS, TARGET, *CLASSES, RUN):
        assert line(name) in ran
    assert main(["inspect", RUN]) == 0
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["predict", RUN, "--data", "data.csv", "--proba"]) == 0
    told = capsys.readouterr()
    assert f"{line(RUN)}: 2 networks: 2 finished" in told.out
    assert f'"probability_{line(CLASSES[1])}"' in told.out
    model = gpubp.load(RUN)
    told_of = f"holds {line(ESCAPE)}new; in training {line(ESCAPE)}x, plain"
    with pytest.warns(UserWarning, match=re.escape(told_of)) as warned:
        model.predict({COLUMNS[0]: [1], COLUMNS[1]: [f"{ESCAPE}new"]})
    for each in (ran, told.out, told.err, repr(model), *(str(each.message) for each in warned)):
        assert unseen(each) == ""


def test_a_page_shows_every_name_as_text(ran: str) -> None:
    assert main(["report", RUN, "--out", "report.html"]) == 0
    assert main(["explain", RUN, "--html", "explained.html"]) == 0
    for name in ("report.html", "explained.html"):
        page = Path(name).read_text(encoding="utf-8")
        embedded = [json.loads(each) for each in re.findall(r'<script type="application/json".*?>(.*?)</script>', page)]
        page = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # of libraries
        assert unseen(page) == ""
        assert {unseen(each) for each in texts(embedded)} <= {""}
        assert "_c_<i>" not in page
        assert html.escape(line(RUN)) in page
        assert line(CLASSES[1]) in {*texts(embedded)} or name != "report.html"


def unseen(text: str) -> str:
    """The characters that a person does not see, or that move what is seen, but for line breaks and no-break spaces."""
    return "".join(each for each in text if each not in "\n\u00a0" and not shown(each))


def texts(found: object) -> Iterator[str]:
    """All names and texts in JSON."""
    if isinstance(found, str):
        yield found
    for each in (*found, *found.values()) if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from texts(each)


def test_tensorboard_shows_names_and_not_what_markdown_makes_of_them(ran: str) -> None:
    found = text(points(Path(RUN, "tensorboard")), "configuration")
    markdown = pytest.importorskip("markdown")
    page = markdown.markdown(found, extensions=["markdown.extensions.tables"])
    for name in (*COLUMNS, TARGET, *CLASSES):
        assert line(name).replace("<", "&lt;").replace(">", "&gt;") in page.replace("&gt;", ">").replace(">", "&gt;")
    assert not {"<em>", "<i>", "<h1>", "<a "} & set(page.split())
    assert _cell("# no heading") == "\\# no heading"


FORMULAS = {
    "=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "+cmd": "'+cmd", "-2+3": "'-2+3", "\t=1": "'\t=1",
    "\r=1": "'\r=1", "＝1": "'＝1", "-2": "-2", "+1.5e3": "+1.5e3", "-.5": "-.5", "a=1": "a=1", "": "", "'": "'",
}  # fmt: skip


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_a_csv_holds_no_formula_in_a_cell_or_a_name_and_numbers_stay_numbers(kind: pa.DataType, tmp_path: Path) -> None:
    cells = pa.array([*FORMULAS, None])
    cells = cells.dictionary_encode() if pa.types.is_dictionary(kind) else cells.cast(kind)
    table = pa.table({"=name": cells, "-5": [-1.5] * (len(FORMULAS) + 1)})
    write_csv([table], tmp_path / "out.csv")
    rows = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_bytes().decode(), newline="")))
    assert rows[0] == ["'=name", "-5"]
    assert [row[0] for row in rows[1:]] == [*FORMULAS.values(), ""]
    assert {row[1] for row in rows[1:]} == {"-1.5"}


def test_predictions_of_a_class_that_is_a_formula_are_texts_in_their_file(ran: str) -> None:
    assert main(["predict", RUN, "--data", "data.csv", "--output", "out.csv"]) == 0
    with Path("out.csv").open(encoding="utf-8", newline="") as file:
        found = [row["prediction"] for row in csv.DictReader(file)]
    expected = gpubp.load(RUN).predict("data.csv").tolist()
    assert found == [f"'{each}" if each == CLASSES[0] else each for each in expected]
    assert CLASSES[0] in expected


@pytest.mark.parametrize("cells", [[1.5, None, None, -2.0], ["a", None, 'b\n\n"c', None], [None] * 4], ids=str)
def test_a_row_of_one_empty_cell_is_no_blank_line_which_readers_skip(cells: list[Any], tmp_path: Path) -> None:
    table = pa.table({"prediction": pa.array(cells)})
    write_csv([table, table], tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")["prediction"]
    assert [None if pd.isna(each) else each for each in found] == cells * 2
    assert len(list(csv.reader(io.StringIO((tmp_path / "out.csv").read_text(), newline="")))) == 9


def test_one_of_anything_is_said_to_be_one(tmp_path: Path) -> None:
    data = gpubp.load_data({"a": [1.0, 2.5, 3.0], "b": [0.5, 0.1, 0.2]}, "b", folds=3)
    assert "3 folds: a setting trains 3 networks, each validated on the 1 sample that it has not seen" in data.about
    one = gpubp.Dataset([[1.0]], [[2.0]])
    common = {"widths": "1,1", "steps": 1, "engine": "eager", "run_dir": tmp_path / "run"}
    result = gpubp.train_many([{}], one, batch_size=9, **common)
    told = [
        one,
        result.population,
        result,
        gpubp.studies.Study(result.table),
        gpubp.replay(tmp_path / "run", 0, data=one),
    ]
    for each, said in zip(
        told,
        ["Dataset(1 sample:", "Population(1 network of", "Result(1 network:", "Study(1 network by", "after 1 step:"],
    ):
        assert said in repr(each)
    assert "batch_size 9 is more than the 1 sample: every batch has all of them" in result.notes
    search = gpubp.search.Hyperband(factor=2)
    result = gpubp.train_many([{}] * 4, one, search=search, **common | {"steps": 4, "run_dir": None})
    assert "hyperband, bracket 1: 1 network, of which these go on: 1 after 2 of 4 steps" in result.notes
    assert "hyperband, bracket 0: 1 network, which trains for 4 steps" in result.notes
