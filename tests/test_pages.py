"""A page stands alone: nothing in it can load anything, and no text in it can become markup."""

import re
from pathlib import Path

import pytest

from gpubp.pages import page as pages
from gpubp.pages.page import page

STYLES = sorted(Path(pages.__file__).parent.glob("*.css"))


def test_a_page_has_all_that_it_shows_and_may_load_nothing():
    found = page("a < b", "<main>body {x}</main>", styles=["p { color: red; }"], scripts=["run();"])
    assert "<title>a &lt; b</title>" in found
    assert "<main>body {x}</main>" in found
    assert "p { color: red; }" in found
    assert "<script>run();</script>" in found
    assert re.search(r'Content-Security-Policy" content="default-src \'none\';', found)
    assert not re.search(r"\b(src|href)=", found)


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.name)
def test_a_style_says_each_rule_once_and_those_within_another_are_indented(path):
    depth, rules, within = 0, [], []
    for text in path.read_text(encoding="utf-8").splitlines():
        line = text.strip()
        depth -= line == "}"
        assert not line or line.startswith(("/*", "*")) or len(text) - len(text.lstrip()) == 2 * depth, text
        if "{" in line and line.endswith("}"):
            (within if depth else rules).append(line)
        depth += line.count("{") - line.count("}") + (line == "}")
    assert depth == 0
    assert len({*rules}) == len(rules)
    assert {*rules} & {*within} == set()
