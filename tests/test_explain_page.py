"""The page of gpubp explain --html shows the numbers of the explanation, and stays within bounds; a browser shows it
without a complaint, by mouse, keyboard and screen reader, on any screen and on paper."""

from itertools import islice
from pathlib import Path

import pytest

import gpubp
from gpubp import tutorial
from gpubp.errors import ConfigError
from gpubp.explaining.steps import explain_steps
from gpubp.pages.explained import explained
from gpubp.pages.formula import markup, places
from gpubp.pages.printed import NOTES

from .commands import Capture, error, here, run, trained  # noqa: F401
from .explained import SETTINGS, SPEC, STEPS, Reader, bare, hostile, made, of_large, of_tutorial, same_terms, tutorials
from .helpers import covering, population, quick, samples, start

TAGS = """html head meta title style script body div header main footer section h1 h2 h3 p b i span sub sup
    details summary ol li ul dl dt dd table thead tbody tr th td label input fieldset legend
    svg g line rect text tspan path"""


def test_the_tutorials_page_shows_every_term_of_its_steps():
    same_terms(tutorials(STEPS), of_tutorial())


def test_the_tutorials_page_has_every_printed_figure_beside_ours():
    page = of_tutorial()
    beside = {bare(each[""]).partition("=")[0]: each["printed"] for each in Reader(page).items}
    for name, printed in tutorial.PRINTED.items():
        if "round" not in name and name != "E_total":
            assert f"printed {printed}, " in beside[bare(name)], name
        assert f'<td class="number">{printed}</td>' in page
    assert "the same digits" in beside["w5+"]
    assert "from a rounded factor" in beside["dEo2/douth1"]
    assert "printed 0.291027924, with the new w5 to w8" in beside["Etotal"]
    assert all(markup(note) in page for note in NOTES)
    assert f'<th scope="row">{markup("dE_o2/dout_h1")}, {markup("dE_o2/dnet_o2")} rounded (explains' in page
    for number in ("0.0000351018778", "0.0000350847863", "0.015912196", "0.984065734"):  # after 10,000 rounds
        assert number in page
    assert "printed" not in "".join(each["printed"] for each in Reader(page, 1).items)


@pytest.mark.parametrize(("case", "bias"), covering(
    [
        ((3, 4, 2), {"optimizer": "adam", "batch_size": 1}),
        ((3, 9, 5, 2), {"optimizer": "momentum", "dropout": 0.4, "clip_value": 0.2, "l1": 0.01, "l2": 0.1}),
        ((4, 3), {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup": 3}),
        ((3, 4, 2), {"update_order": "layerwise"}),
        ((3, 4, 2), {"clip_norm": 0.4, "lr": 0.5}),
        ((3, 4, 2), {"optimizer": "nadam", "schedule": "one_cycle"}),
    ],
    ["neuron", "layer", "none"], meet=1,
))  # fmt: skip
def test_every_setting_shows_its_terms(case, bias):
    widths, settings = case
    made(gpubp.NetworkSpec(widths, "sigmoid", loss="half_squared_error", bias=bias), **settings)


OFTEN = ("cross_entropy", "hinge", "huber", "poisson")  # of classes, with cases, with functions


@pytest.mark.parametrize("loss", quick(gpubp.LOSSES, OFTEN))
def test_every_loss_shows_its_terms(loss):
    made(gpubp.NetworkSpec((3, 4, 1 if loss == "hinge" else 2), loss=loss), 1)


def test_a_term_that_some_steps_lack_is_shown_at_the_others():
    found = made(steps=3, clip_norm=1.2, lr=0.3)
    rows = [sum(bare(each[""]).startswith("gradw1=") for each in Reader(found, step).items) for step in range(3)]
    assert sorted(set(rows)) == [0, 1]


def test_a_step_that_is_not_finite_is_the_last():
    data = gpubp.Dataset(*samples(SPEC, 11))
    state = start(population(SPEC, 2), data, **SETTINGS)
    state.population.params[1] = 1e200
    explanations = list(islice(explain_steps(state, data, 1), 5))
    assert len(explanations) == 1
    page = explained(explanations, "Network 1")
    same_terms(explanations, page)
    assert 'type="range"' not in page


def test_places_are_read_from_formulas():
    assert places("dE_total/dw12", "direction_w12 + b_h1_2 * i3") == ["total", "w12", "b_h1_2", "i3"]
    assert places("E") == ["total"]
    assert places("half_squared_error(w, hw1, o1x)") == []
    assert markup("e^-1.5 * (a - x_o1)^2 < b_h1+") == (
        "e<sup>-1.5</sup>\u00a0×\u00a0(a −\u00a0x<sub>o1</sub>)<sup>2</sup> &lt; b<sub>h1</sub><sup>+</sup>"
    )
    assert markup("sqrt(1 - power2+) + 1e+20") == "√(1 −\u00a0power2<sup>+</sup>) + 1e+20"
    assert markup("gamma^floor(step / step_size) + gamma^after") == (
        "gamma<sup>floor(step / step_size)</sup> + gamma<sup>after</sup>"
    )


def test_names_cannot_become_markup():
    found = Reader(hostile())
    assert found.tags <= set(TAGS.split())
    assert not {name for name in found.names if name.startswith("on")} | found.names & {"src", "href"}
    assert hostile().count("<script") == 2
    assert "\u202e" not in hostile()


def test_a_large_network_stays_small_and_says_what_it_leaves_out():
    page = of_large()
    assert len(page) < 1e6
    for rest in ("and 61 more", "and 29 more", "and 7 more", "3 of 10 samples, 3 of 64 inputs, 3 of 32 units of the"):
        assert rest in page
    assert page.count('class="place weight') == 2 * 9
    assert "<details><summary><h3>Hidden Layer" in page


def test_a_full_page_has_every_term_and_a_page_too_large_is_refused(monkeypatch):
    spec = gpubp.NetworkSpec((9, 9, 9), "relu")
    assert "w162" not in made(spec, 1)
    assert "w<sub>162</sub><sup>+</sup>" in made(spec, 1, full=True)
    monkeypatch.setattr("gpubp.pages.explained.LIMIT", 1_000_000)
    large = gpubp.NetworkSpec((40, 30, 10), "relu")
    with pytest.raises(ConfigError, match=r"a page of one step has \d+ MB, 1 at most: fewer --steps, or no --full"):
        made(large, 1, full=True, batch_size=10)


def test_the_command_writes_a_page_of_a_run(capsys: Capture) -> None:
    trained("--data xor --widths 2,3,1 --networks 3 --steps 5 --run-dir made", capsys)
    assert run("explain made --network 2 --html a.html --steps 2", capsys) == "a.html: 0.2 MB\n"
    page = Path("a.html").read_text(encoding="utf-8")
    assert "<h1>Network 2 of made</h1>" in page
    assert 'min="0" max="2"' in page
    assert "a xor b" in page
    for step in range(3):
        assert f"step {6 + step}: E_total" in page


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--html there", "there exists already; name a new file"),
        ("--html a.txt", "--html a.txt: a name that ends in .html expected"),
        ("--html a.html --json", "--html and --json: one of them expected"),
        ("--html a.html --steps 101", "--steps 101: at most 100 expected"),
        ("--steps 2", "--steps 2: for --html FILE"),
        ("--html missing/a.html --steps 1", "missing/a.html cannot be written: No such file or directory"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(flags, said, capsys, monkeypatch):
    monkeypatch.setattr(tutorial, "compare", lambda: ())
    Path("there").write_text("kept")
    assert said in error(f"explain {flags}", capsys)
    assert Path("there").read_text() == "kept"
    assert [each.name for each in Path().iterdir()] == ["there"]
