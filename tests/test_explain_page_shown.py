"""The page of gpubp explain --html in a browser: by mouse, keyboard and screen reader, on any screen and on paper."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gpubp
from gpubp.explaining.text import Text

from .browser import NARROW, WIDE, overflow, violations
from .explained import STEPS, hostile, made, of_deep, of_large, of_tutorial, tutorials

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def shown(page: Callable[[], str]) -> Any:
    """A fixture: the file of a page."""

    @pytest.fixture(scope="module")
    def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
        found = tmp_path_factory.mktemp("page") / "page.html"
        found.write_text(page(), encoding="utf-8")
        return found

    return path


ours, large, deep = shown(of_tutorial), shown(of_large), shown(of_deep)
small = shown(lambda: made(gpubp.NetworkSpec((2, 1))))


def term(page: Page, name: str) -> Locator:
    """The first term that is seen and has this name."""
    return page.locator(".term:visible", has=page.locator(".name", has_text=re.compile(f"^{name}$"))).first


def place(page: Page, name: str) -> Locator:
    return page.locator(f'#drawing .place[data-place="{name}"]')


def lit(page: Page, kind: str) -> set[str]:
    """The places of the drawing that are lit, as what a term is about ("own") or as what it uses ("uses")."""
    return set(page.locator(f"#drawing .place.{kind}").evaluate_all("all => all.map(each => each.dataset.place)"))


def seen(page: Page, name: str) -> str:
    """The text of a place that is seen."""
    texts = """place => [...place.querySelectorAll("text, tspan")]
        .filter(each => each.getClientRects().length && !each.querySelector("tspan")).map(each => each.textContent)"""
    return " ".join(" ".join(place(page, name).evaluate(texts)).split())


def focused(page: Page, name: str) -> str:
    """The attribute data-`name` of the element that has the focus."""
    return str(page.evaluate("(name) => document.activeElement.dataset[name]", name))


def test_the_slider_moves_by_the_keyboard_and_changes_every_number(ours, opened):
    page = opened(ours)
    page.locator("#step").focus()
    for step, explanation in enumerate(tutorials(STEPS)):
        values = explanation.to_dict()
        n = Text(values, False).number
        assert n(values["layers"][1]["weight"]["new"][0][0]) in term(page, r"w5\+").inner_text()
        assert n(values["layers"][0]["out"][0][0]) in term(page, "outh1").inner_text()
        assert n(values["error"]["E_total"]) in page.locator(".now").inner_text()
        if step:
            errors = [n(values[each]["E_total"]) for each in ("error", "new_error")]
            said = f"step {step + 1}: E_total {errors[0]}, after the step {errors[1]}"
            assert page.locator("#said").inner_text() == said
            assert page.locator("#step").get_attribute("aria-valuetext") == said
        page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    assert page.locator(".now").inner_text().startswith(f"Step {STEPS}")
    page.keyboard.press("Home")
    assert page.locator(".now").inner_text().startswith("Step 1 ")


def test_a_term_lights_its_places_and_a_place_its_terms(ours, opened):
    page = opened(ours)
    term(page, "neth1").hover()
    assert lit(page, "own") == {"h1"}
    assert lit(page, "uses") == {"i1", "i2", "w1", "w2", "b1"}
    term(page, "∂Eo2/∂outh1").hover()
    assert lit(page, "own") == {"h1"}
    assert lit(page, "uses") == {"o2", "w7"}
    assert seen(page, "h1") == "h1 out 0.5933 ∂E/∂out 0.03635 ∂E/∂net 0.008771"
    assert seen(page, "w7") == "w7 0.5", "its value, which the term uses"
    place(page, "w5").hover()
    assert lit(page, "own") == {"w5"}
    own = page.locator(".term.own .name").all_inner_texts()
    assert [re.sub(r"\s", "", each) for each in own] == ["∂neto1/∂w5", "∂Etotal/∂w5", "w5+"]
    assert page.locator(".term.uses").count() == 2, "net_o1 and dE_o1/dout_h1"
    page.mouse.move(0, 0)
    assert lit(page, "own") == lit(page, "uses") == set()


def test_the_drawing_shows_what_the_chosen_phase_has(ours, opened):
    page, words = opened(ours), {"forward": "w5 0.4", "backward": "∂E/∂w5 0.08217", "update": "w5+ 0.3589"}
    page.locator('input[value="forward"]').focus()
    for phase, said in words.items():
        assert page.locator(f'input[value="{phase}"]').is_checked()
        assert seen(page, "w5") == said
        page.keyboard.press("ArrowRight")


def test_the_keyboard_goes_from_a_term_to_its_place_and_back(ours, opened):
    page = opened(ours)
    term(page, "neto1").focus()
    assert lit(page, "own") == {"o1"}
    page.keyboard.press("Tab")
    assert page.locator(".term:focus .name").inner_text() == "outo1"
    page.keyboard.press("Enter")
    assert focused(page, "place") == "o1"
    for key, expected in (("ArrowLeft", "w7"), ("ArrowLeft", "h1"), ("ArrowDown", "h2"), ("ArrowUp", "h1")):
        page.keyboard.press(key)
        assert focused(page, "place") == expected
    page.keyboard.press("Enter")
    assert focused(page, "own") == "h1"
    assert page.locator('#drawing [tabindex="0"]').count() == 1


def test_a_folded_layer_opens_where_a_place_leads_to_it(large, opened):
    page = opened(large)
    hidden = page.locator('.term[data-own="h1"]').first
    assert not hidden.is_visible()
    place(page, "h1").click()
    assert hidden.is_visible()
    page.locator('input[name="slot"][value="2"]').check()
    assert page.locator("#shown").get_attribute("data-slot") == "2"


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("small", NARROW, "dark"),
        pytest.param("ours", WIDE, "light", marks=pytest.mark.slow),
        pytest.param("ours", NARROW, "dark", marks=pytest.mark.slow),
        pytest.param("deep", WIDE, "light", marks=pytest.mark.slow),
        pytest.param("large", NARROW, "dark", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(name, width, scheme, request, opened):
    page = opened(request.getfixturevalue(name), width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.locator(".term").first.focus()
    assert violations(page) == []
    assert overflow(page) == 0


READABLE = 8  # pixels of the numbers' letters


def fades(wide: Locator, before: bool, after: bool) -> None:
    """Waits until there is more on the left and on the right, or not, and fading edges say so."""
    there = """([each, before, after]) => {
        const right = each.scrollWidth - each.clientWidth - each.scrollLeft;
        return (each.scrollLeft > 1) === before && (right > 1) === after
            && each.classList.contains("before") === before && each.classList.contains("after") === after
            && getComputedStyle(each).maskImage.includes("gradient") === (before || after);
    }"""
    wide.page.wait_for_function(there, arg=[wide.element_handle(), before, after], timeout=20_000)


def letters(page: Page) -> float:
    """The size of the drawing's letters on the screen, in pixels."""
    scale = page.locator("#drawing").evaluate("each => each.getScreenCTM().a")
    size = page.locator("#drawing").evaluate("each => parseFloat(getComputedStyle(each).fontSize)")
    return float(scale * size)


def test_a_drawing_fits_its_panel_while_its_letters_are_readable(deep, opened):
    page = opened(deep, 1280 - 15)  # without a scroll bar
    fades(page.locator(".wide").first, False, False)
    assert letters(page) >= READABLE


def test_an_edge_fades_where_there_is_more_and_arrow_keys_go_there(ours, deep, opened):
    for path in (ours, deep):
        page = opened(path, NARROW)
        for wide in page.locator(".wide").all():
            fades(wide, False, True)
            wide.focus()
            page.keyboard.press("ArrowRight")
            fades(wide, True, True)
            wide.evaluate("each => each.scrollLeft = each.scrollWidth")
            fades(wide, True, False)
        assert letters(page) >= READABLE


def test_hostile_names_are_shown_as_text(tmp_path, opened):
    path = tmp_path / "hostile.html"
    path.write_text(hostile(), encoding="utf-8")
    page = opened(path)
    assert "<script>alert(1)</script>" in page.locator("h1").inner_text()
    page.locator("details.names summary").click()
    assert "<img src=x onerror=alert(1)>" in page.locator("details.names").inner_text()
    assert page.locator("img").count() == 0


def test_paper_has_the_drawing_and_all_terms_but_no_controls(large, opened):
    page = opened(large, scheme="dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.locator("#step").is_visible()
    assert page.locator("#drawing").is_visible()
    terms = page.locator(".term")
    assert all(terms.nth(k).is_visible() for k in range(0, terms.count(), 17))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(page.pdf()) > 10_000
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_the_first_step_reads_without_the_script(ours, chromium):
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(ours.as_uri())
        assert page.locator(".now").inner_text().startswith("Step 1 ")
        assert page.locator(".term .result:visible", has_text="0.35891648").count() == 1
