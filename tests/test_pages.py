"""A page stands alone: nothing in it can load anything, and no text in it can become markup."""

import json
import re

from gpubp.pages.page import embedded, page


def test_a_page_has_all_that_it_shows_and_may_load_nothing():
    found = page("a < b", "<main>body {x}</main>", styles=["p { color: red; }"], scripts=["run();"])
    assert "<title>a &lt; b</title>" in found
    assert "<main>body {x}</main>" in found
    assert "p { color: red; }" in found
    assert "<script>run();</script>" in found
    assert re.search(r'Content-Security-Policy" content="default-src \'none\';', found)
    assert not re.search(r"\b(src|href)=", found)


def test_data_in_a_page_cannot_end_their_element():
    value = {"name": "</script><script>alert(1)</script>", "numbers": [0.1, None]}
    found = embedded("data", value)
    assert found.count("<") == 2
    assert json.loads(found.partition(">")[2].rpartition("</script>")[0]) == value


def test_data_in_a_page_have_nothing_that_is_not_seen():
    found = embedded("data", {"na\u202eme": ["a\x1b[2J\nb\u00a0c", "\u3164"]})
    assert json.loads(found.partition(">")[2].rpartition("</script>")[0]) == {
        r"na\u202eme": ["a\\x1b[2J\nb\u00a0c", r"\u3164"]
    }
