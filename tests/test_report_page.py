"""Reports in a browser: hovering and picking answer, everybody can read them, and no name in them is markup. Any page
stands alone: nothing in it can load anything."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpubp import studies
from gpubp.cli import main
from gpubp.pages import figures
from gpubp.pages import page as pages

from .browser import NARROW, Opener, overflow, violations
from .reports import RUNS, Reported, data_of, page_of, reported  # noqa: F401
from .test_studies import results


class Tags(HTMLParser):
    """The names of all elements, and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found |= {tag, *(f"@{name}" for name, _ in attrs)}


HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose name, columns, classes and entities would be markup."""
    folder = tmp_path_factory.mktemp("hostile") / "<b onclick='x()'>run"
    classes = ["</script><script>alert(2)</script>", HOSTILE, "{{x}} ${y} `z`"]
    rows = [["a", HOSTILE, "t"], *([at / 7 % 1, f"{HOSTILE}{at % 2}", classes[at % 3]] for at in range(60))]
    file = folder.parent / "data.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    flags = f"--target t --networks 6 --lr 1e-3..1e-1:log --epochs 3 --engine eager --tensorboard false --data {file}"
    assert main(["train", *flags.split(), "--per", HOSTILE, "--run-dir", str(folder)]) == 0
    page_of(folder)
    return folder / "report.html"


def test_no_name_is_markup(hostile: Path, reported: Reported) -> None:
    page = hostile.read_text(encoding="utf-8")
    assert "&lt;b onclick=" in page
    bad, good = Tags(), Tags()
    bad.feed(page)
    good.feed(reported("sweep")[1])
    assert bad.found - good.found == set()


def test_a_page_of_hostile_names_opens_as_any_other(hostile: Path, opened: Opener) -> None:
    page = opened(hostile)
    assert page.evaluate("document.images.length") == 0
    assert page.locator("svg").count() >= 8
    assert HOSTILE in page.locator("main").inner_text()


@pytest.mark.parametrize(
    ("name", "scheme"), [("sweep", "light"), pytest.param("numbers", "dark", marks=pytest.mark.slow)]
)
def test_a_report_is_accessible(name: str, scheme: str, reported: Reported, opened: Opener) -> None:
    assert violations(opened(reported(name)[0] / "report.html", scheme=scheme)) == []


QUICK = ("sweep", "numbers", "queue", "diverged")  # which have other figures


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in RUNS])
def test_a_report_fits_a_narrow_screen_with_all_its_figures(name: str, reported: Reported, opened: Opener) -> None:
    page = opened(reported(name)[0] / "report.html", width=NARROW)
    assert overflow(page) == 0
    assert page.locator("[data-draw]:has(svg)").count() == page.locator("[data-draw]").count() > 0
    if clock := {"sweep": "training step", "queue": "network-steps"}.get(name):
        for figure in page.locator("[data-draw=bands] svg, [data-draw=statuses] svg").all():
            assert f"{clock} →" in str(figure.text_content()), "axes say what they count"


def test_hovering_shows_the_numbers_of_the_place(reported: Reported, opened: Opener) -> None:
    folder, content = reported("sweep")
    panel, page = data_of(content)["bands"]["panels"]["validation_loss"], opened(folder / "report.html")
    figure = page.locator("[data-key=validation_loss] svg")
    box = figure.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 22, box["y"] + box["height"] / 2)
    said = figure.locator("[aria-label=tip]").text_content() or ""
    median = float(re.search(r"median ([\d.,e+-]+)", said)[1].replace(",", ""))  # type: ignore[index]
    assert median == pytest.approx(panel["median"][-1], rel=1e-2)
    for figure in page.locator("[data-draw] svg").all():
        figure.scroll_into_view_if_needed()
        box = figure.bounding_box()
        marks = figure.locator("[aria-label=dot] circle, [aria-label=cell] rect, [aria-label=rect] rect")
        area = marks.first.bounding_box() if marks.count() else {**box, "height": box["height"] - 20}
        page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)
        said = figure.locator("[aria-label=tip]").last.text_content() or ""
        assert re.search(r"\d", said), figure.evaluate("each => each.parentElement.dataset.draw")


def test_picking_a_network_changes_the_curve(reported: Reported, opened: Opener) -> None:
    folder, content = reported("sweep")
    data, page = data_of(content), opened(folder / "report.html")
    drawn = page.locator("[data-draw=curves]")
    before = drawn.locator("svg").inner_html()
    network = data["points"]["network"][4]
    page.locator("#pick").select_option(str(network))
    assert drawn.locator("svg").inner_html() != before
    assert f"picked: network {network}" in drawn.inner_text()
    assert f"rank 5, validation loss {data['points']['figure'][4]:.4g}" in page.locator("#picked").inner_text()
    assert page.locator("circle.ring").count() == 1
    dot = page.locator("[data-draw=effect] svg circle").first
    dot.scroll_into_view_if_needed()
    dot.hover(force=True)
    dot.click(force=True)
    assert f"picked: network {network}" not in drawn.inner_text()


def test_numbers_that_name_entities_are_written_whole(tmp_path: Path, opened: Opener) -> None:
    days = (20260101, 20260102)
    rows = [f"{day},{sample},{sample % 5}" for day in days for sample in range(20)]
    file, folder = tmp_path / "days.csv", tmp_path / "run"
    file.write_text("\n".join(["day,x,y", *rows]))
    flags = "--target y --per day --widths 1,2,1 --loss mean_squared_error --networks 2 --epochs 2 --engine eager"
    assert main(["train", "--data", str(file), *flags.split(), "--run-dir", str(folder)]) == 0
    page_of(folder)
    drawn = opened(folder / "report.html").locator("[data-draw=effect]").first.inner_text()
    assert all(f"{day:,}" in drawn for day in days)


def test_a_page_has_all_that_it_shows_and_may_load_nothing() -> None:
    found = pages.page("a < b", "<main>body {x}</main>", styles=["p { color: red; }"], scripts=["run();"])
    assert "<title>a &lt; b</title>" in found
    assert "<main>body {x}</main>" in found
    assert "p { color: red; }" in found
    assert "<script>run();</script>" in found
    assert re.search(r'Content-Security-Policy" content="default-src \'none\';', found)
    assert not re.search(r"\b(src|href)=", found)


@pytest.mark.parametrize("count", [3, 40])
def test_nan_is_no_value_and_infinity_a_group(count: int) -> None:
    r2, patience = np.linspace(0, 1, count), np.arange(1.0, count + 1)
    r2[:2], patience[-1] = np.nan, np.inf
    study = studies.Study(results(loss=np.arange(count), r2=r2, patience=patience))
    without = study.by("r2")[-1]
    assert (without.values, without.networks, without.mean) == ({"r2": None}, 2, 0.5)
    last = study.by("patience")[-1]
    assert (last.values, last.networks) == ({"patience": np.inf}, 1)
    assert sum(group.networks for group in study.by("patience")) == count


def test_a_report_names_an_infinite_setting_inf_and_none_where_there_is_no_value() -> None:
    patience = [3.0, np.inf, np.nan, 5.0, 3.0, np.inf]
    study = studies.Study(results(loss=np.arange(6.0), patience=patience))
    (found,) = figures.effects(study)
    assert [each["values"] for each in found["groups"]] == [[3.0], [5.0], ["inf"], [None]]
    assert figures.points(study, ["patience"])["columns"]["patience"] == [3.0, "inf", None, 5.0, 3.0, "inf"]
