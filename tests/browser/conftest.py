"""A real browser against a real server. A test fails by an error in the console, or a request to another host."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.server.live import LiveServer
from tests.server.tiny import write_tiny_weights
from tests.waiting import HANG_SECONDS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT = 1000 * HANG_SECONDS  # milliseconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="needs chromium: apt-get install chromium"))


@dataclass
class Watched:
    """What a page's console and network told. `expected` are errors that a test causes on purpose, by their text."""

    host: str
    faults: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        context.on("console", lambda message: self._note(message.type, message.text))
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        context.on("request", lambda request: self._check(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not any(word in text for word in self.expected):
            self.faults.append(text)

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"blob", "data"} and parts.netloc != self.host:
            self.strangers.append(url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one module: its event loop must not run while other modules' asynchronous tests do."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    with LiveServer(tmp_path_factory.mktemp("live"), folder, OAR_RESULT_TTL="600") as server:
        yield server


@pytest.fixture
def watched(live: LiveServer) -> Iterator[Watched]:
    watched = Watched(urlsplit(live.url).netloc, expected=["willReadFrequently"])  # these tests read canvases
    yield watched
    assert not watched.faults, "the console has errors"
    assert not watched.strangers, "other hosts were asked"


@pytest.fixture
def context(browser: Browser, live: LiveServer, watched: Watched) -> Iterator[BrowserContext]:
    """A fresh profile, 1280 x 800."""
    context = browser.new_context(base_url=live.url, viewport={"width": 1280, "height": 800}, accept_downloads=True)
    context.set_default_timeout(TIMEOUT)
    watched.watch(context)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
