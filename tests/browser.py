"""Pages in headless Chromium: every file has these fixtures, and a test asks for `opened`.

A page that complains in the console, or asks for anything but its own file, fails the test that opened it. Where no
Chromium is installed, tests of pages are skipped by name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request

WIDE, NARROW = 1400, 390  # pixels
NAMES = ("chromium", "chromium-browser", "google-chrome")
Opener = Callable[..., "Page"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For the tests of one file: while it runs, no other event loop can."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0  # whom its sandbox refuses
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(chromium: Browser) -> Iterator[Page]:
    """The one page of a file's tests: another one costs a process."""
    with chromium.new_context() as context:
        yield context.new_page()


@pytest.fixture
def opened(tab: Page) -> Iterator[Opener]:
    """opened(path, width=WIDE, scheme="light"): the page in a file, until another is opened."""
    complaints: list[str] = []
    own = ""

    def said(message: ConsoleMessage) -> None:
        complaints.extend([message.text] * (message.type in ("error", "warning")))

    def failed(error: Error) -> None:
        complaints.append(str(error))

    def asked(request: Request) -> None:
        complaints.extend([] if _stays(request.url, own) else [request.url])

    def opener(path: Path, width: int = WIDE, scheme: str = "light") -> Page:
        nonlocal own
        own = path.resolve().as_uri()
        tab.mouse.move(0, 0)  # where nothing answers to it
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(media="screen", color_scheme=scheme)
        tab.goto(own)
        return tab

    heard = {"console": said, "pageerror": failed, "request": asked}
    for event, listener in heard.items():
        tab.on(event, listener)
    yield opener
    tab.goto("about:blank")
    for event, listener in heard.items():
        tab.remove_listener(event, listener)
    assert not complaints, complaints


def _stays(url: str, own: str) -> bool:
    return url.partition("#")[0] == own or url.startswith(("data:", "blob:"))


def violations(page: Page) -> list[str]:
    """What axe-core finds against accessibility: a line per rule, with the elements."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{rule['id']}: {[node['html'][:200] for node in rule['nodes']]}" for rule in found]


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
