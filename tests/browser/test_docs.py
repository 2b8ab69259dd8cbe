"""The page `/docs`: whole without any other host, under the studio's policy, at the root and below a prefix."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from server.api.pages import POLICY
from tests.browser.conftest import TIMEOUT, Watched
from tests.browser.studio import submit, wait_for
from tests.server.live import LiveServer
from tests.server.nginx import Nginx, needs_nginx


def try_out(page: Page) -> None:
    """Sends a request of the page's own form to its server."""
    page.locator("#operations-models-models_list_models .opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute", exact=True).click()
    expect(page.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")


def test_it_shows_and_tries_the_interface(page: Page, live: LiveServer) -> None:
    answer = page.goto("/docs")
    assert answer is not None
    assert answer.headers["content-security-policy"] == POLICY, "that of the studio's files"
    expect(page.locator(".opblock")).to_have_count(len(operations(live)))
    try_out(page)


def test_an_older_address_leads_there(page: Page) -> None:
    page.goto("/redoc")
    assert urlsplit(page.url).path == "/docs"


@pytest.fixture
def below(browser: Browser, live: LiveServer, tmp_path: Path) -> Iterator[Page]:
    """A page whose server lies below `/oar/` of an nginx that says so."""
    with Nginx(tmp_path, live.url, "Host $http_host", "X-Forwarded-Prefix /oar") as nginx:
        watched = Watched(urlsplit(nginx.url).netloc, expected=["willReadFrequently"])
        context = browser.new_context(base_url=f"{nginx.url}/", viewport={"width": 1280, "height": 800})
        context.set_default_timeout(TIMEOUT)
        watched.watch(context)
        outside: list[str] = []
        context.on("request", lambda request: note_outside(request.url, outside))
        yield context.new_page()
        context.close()
        assert (watched.faults, watched.strangers, outside) == ([], [], [])


def note_outside(url: str, outside: list[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"blob", "data"} and not parts.path.startswith("/oar/"):
        outside.append(url)


@needs_nginx
def test_it_works_below_a_prefix(below: Page) -> None:
    below.goto("docs")
    try_out(below)


@needs_nginx
def test_the_studio_works_below_a_prefix(below: Page) -> None:
    below.goto("./#/")
    expect(below.locator("#waiting")).to_have_count(0)
    submit(below)
    wait_for(below)
    below.reload()
    below.get_by_role("link", name="Gallery").click()
    expect(below.locator(".gallery-item img")).to_have_count(1)
    below.get_by_role("link", name="API").click()
    expect(below.locator(".opblock").first).to_be_visible()


def operations(live: LiveServer) -> list[str]:
    paths = live.client.get("/openapi.json").json()["paths"]
    return [method for methods in paths.values() for method in methods]
