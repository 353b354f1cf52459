"""The pages of the site: their Python runs, their commands are commands, and what they show comes from the package."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import gpubp
from gpubp import tutorial
from gpubp.cli import COMMANDS, main, parser
from made import MARK, PARTS, commands, docstrings, figures, pictures, rules, sources

from .commands import Capture, here  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
BLOCKS: dict[str, str] = {}  # each once
for page, content in PAGES.items():
    for number, block in enumerate(PYTHON.findall(content)):
        if block not in BLOCKS.values():
            BLOCKS[f"{page} {number}"] = block
COMPILES = "README.md 0"  # the others run by the engine that compiles nothing
SLOW = ("docs/howto/verify.md 0", "docs/howto/scikit-learn.md 2")  # of what test_verify.py and test_sklearn.py show
LENGTH = re.compile(r"\b(epochs|max_iter)(=|\": )\d{2,}\b")
MANY = {"range(300)": "range(100)", ", 2000, widths": ", 300, widths"}  # of networks; still more than slots


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in BLOCKS])
def test_the_python_of_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For three epochs."""
    if name != COMPILES:
        monkeypatch.setenv("CXX", "none")
    block = LENGTH.sub(r"\1\g<2>3", BLOCKS[name])
    for many, fewer in MANY.items():
        block = block.replace(many, fewer)
    exec(compile(block, name, "exec"), {})
    assert [path.name for path in tmp_path.iterdir()] == []


def test_the_commands_of_the_tour_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("CXX", "none")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGES["docs/tour.md"], re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("gpubp ")]
    others = "\n".join(blocks).replace("gpubp ", ": gpubp ")  # what the shell does by itself: it writes new.csv
    subprocess.run(["bash", "-ec", others], check=True, timeout=60)
    for line in lines:  # with fewer networks and epochs than the page has
        line = line.replace("--networks 1000", "--networks 20 --epochs 2").replace("--epochs 200", "--epochs 3")
        assert main(shlex.split(line, comments=True)[1:]) == 0, line
    assert (len(blocks), len(lines)) == (2, 5)
    assert "class_0" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "new.csv"}


def test_the_commands_of_the_pages_are_commands() -> None:
    found = [line for text in PAGES.values() for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
             for line in block.splitlines() if line.startswith("gpubp ")]  # fmt: skip
    assert len(found) >= 20
    commands = parser()
    for line in found:
        arguments = shlex.split(line, comments=True)[1:]
        assert commands.parse_args(arguments).subcommand == arguments[0]


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(((?!https?:|#)[^)#]+)", re.sub(r"^```.*?^```", "", PAGES[name], flags=re.M | re.S))
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_the_files_of_the_architecture_are_there() -> None:
    files = re.findall(r"(?<![\w/])[\w/]+\.(?:py|h)\b", PAGES["docs/inside/architecture.md"])
    assert len(set(files)) >= 50
    assert [each for each in files if not (ROOT / "gpubp" / each).exists()] == []


def test_every_example_is_linked_by_a_page() -> None:
    pages = "".join(text for name, text in PAGES.items() if name.startswith("docs/"))
    scripts = sorted((ROOT / "examples").glob("*.py"))
    assert [path.name for path in scripts if f"](../../examples/{path.name})" not in pages] == []
    assert "](../examples)" in PAGES["docs/index.md"]


def test_every_part_of_the_site_is_on_a_page_and_every_mark_has_its_part() -> None:
    assert sorted(mark for text in PAGES.values() for mark in MARK.findall(text)) == sorted(PARTS)


def test_every_public_name_is_in_the_reference() -> None:
    text = PAGES["docs/reference/api.md"]
    documented = {*re.findall(r":: gpubp\.(\w+)$", text, re.M), *re.findall(r"`([A-Z]+)`", text)}
    assert set(gpubp.__all__) - documented == {"GpubpError", "backprop"}  # the page has all of their modules
    assert ":: gpubp.errors" in text
    assert ":: gpubp.backprop.gradients" in text


def test_the_reference_of_the_command_line_has_every_flag() -> None:
    text = commands.commands()
    for name, module in COMMANDS.items():
        part = text.split(f"## gpubp {name}\n")[1].split("\n## ")[0]
        flags = {option for action in module.parser()._actions for option in action.option_strings} - {"-h", "--help"}
        assert [
            flag for flag in flags if f"`{flag} " not in part and f"`{flag}`" not in part and f"`{flag}[" not in part
        ] == []
    assert r"low..high" not in text
    assert commands.safe("a|b <c> `d` *e*") == r"a\|b \<c\> \`d\` \*e\*"


def test_the_tutorials_page_has_every_printed_figure() -> None:
    """And the step of its first round, and the orders that give the printed digits."""
    first, last = figures.printed(), figures.trained()
    shown = [row.split(" | ")[:2] for row in (first + "\n" + last).splitlines()]
    found = {name.strip("|` "): printed for name, printed in shown}
    assert [name for name, printed in tutorial.PRINTED.items() if found.get(name) != printed] == []
    assert "| E after 9,999 rounds | 0.0000351085 | 0.0000351085481 | 0.0000350914538 | simultaneous |" in last
    assert "| E after 10,000 rounds | 0.0000351085 | 0.0000351018778 | 0.0000350847863 | neither |" in last
    assert "E_total = E_o1 + E_o2 = 0.274811083 + 0.023560026 = 0.298371109" in figures.phase("error")
    assert "w1+ = w1 - 0.5 * dE_total/dw1" in figures.phase("backward")


def test_a_rules_part_has_formula_source_picture_and_code() -> None:
    part = rules.activation("tanh", gpubp.ACTIVATIONS["tanh"])
    for each in (
        r"f(x) = \tanh",
        "Efficient BackProp",
        '<svg class="rule" role="img" aria-label="tanh',
        "1 - out * out",
    ):
        assert each in part
    assert "\n\n" not in part[part.index("<svg") : part.index("</svg>")]  # which would end the HTML
    part = rules.optimizer("lion", gpubp.OPTIMIZERS["lion"])
    assert r"m \leftarrow \beta_{2} m" in part
    assert "`weight_decay` 0, `beta1` 0.9, `beta2` 0.99" in part


@pytest.mark.parametrize("name", gpubp.OPTIMIZERS)
def test_the_picture_of_an_optimizer_shows_it_come_near_the_bottom(name: str) -> None:
    places = pictures.path(gpubp.OPTIMIZERS[name], pictures.RATES.get(name, 0.15), (-2.5, 1.0))
    assert abs(places[-1]).max() < 0.5


def test_a_link_to_a_file_becomes_one_to_its_page() -> None:
    found = sources.linked("maths/index", "see [`backprop.py`](../../gpubp/backprop.py) and [gpu](../gpu.md)")
    assert found == 'see <a href="../source/gpubp/backprop.py.html">`backprop.py`</a> and [gpu](../gpu.md)'
    with pytest.raises(FileNotFoundError, match=r"docs/engine\.md links \.\./gpubp/nothing\.py, which does not exist"):
        sources.linked("engine", "[x](../gpubp/nothing.py)")


def test_a_docstring_is_shown_as_it_is_written() -> None:
    lines = ["l1 * sum |w| of `rows_`.", "", "Attributes:", "    lr, eps: a number", "        or many.", "More."]
    assert docstrings.rewritten(lines) == [
        r"l1 \* sum \|w\| of ``rows_``.", "", "", "**Attributes**", "", "``lr, eps``", "    a number", "    or many.",
        "More.",
    ]  # fmt: skip
