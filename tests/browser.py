"""Pages in headless Chromium: `from .browser import chromium, opened  # noqa: F401`, and a test asks for `opened`.

A page that complains in the console, or asks for anything but its own file, fails the test that opened it. Where no
Chromium is installed, tests of pages are skipped by name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

WIDE, NARROW = 1400, 390  # pixels
NAMES = ("chromium", "chromium-browser", "google-chrome")
Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For the tests of one file: while it runs, no other event loop can."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0  # whom its sandbox refuses
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Opener]:
    """opened(path, width=WIDE, scheme="light"): the page in a file, which stays open to the end of the test."""
    contexts, complaints = [], []

    def opener(path: Path, width: int = WIDE, scheme: str = "light") -> Page:
        own = path.resolve().as_uri()
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: None if _stays(asked.url, own) else complaints.append(asked.url))
        page.goto(own)
        return page

    yield opener
    for context in contexts:
        context.close()
    assert not complaints, complaints


def _stays(url: str, own: str) -> bool:
    return url.partition("#")[0] == own or url.startswith(("data:", "blob:"))


def violations(page: Page) -> list[str]:
    """What axe-core finds against accessibility: a line per rule, with the elements."""
    found = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {[node['html'][:200] for node in rule['nodes']]}" for rule in found]


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
