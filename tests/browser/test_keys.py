"""The studio against a server that asks for keys: typed once, it serves pages, pictures and websockets."""

import base64
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from server.api.keyring import hash_key
from tests.browser.conftest import Watched
from tests.browser.studio import job_ids, open_view, submit, wait_for_end_of_painting
from tests.server.live import LiveServer
from tests.server.tiny import write_tiny_weights

KEY = "oar-key-~~~???17"  # plain base64 of it has characters that a subprotocol cannot have
OTHER_KEY = "oar-key-of-another-tenant"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys.write_text(
        f'[tenants.one]\nkeys = ["{hash_key(KEY)}"]\nrate = 0\n\n[tenants.other]\nkeys = ["{hash_key(OTHER_KEY)}"]\n'
    )
    with LiveServer(tmp_path_factory.mktemp("live"), folder, OAR_API_KEYS=str(keys)) as server:
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        yield server


@pytest.fixture(autouse=True)
def _refusals_are_expected(watched: Watched) -> None:
    watched.expected += ["401", "404"]


def dialog_of(page: Page) -> Locator:
    return page.get_by_role("dialog", name="This server asks for a key")


def give(page: Page, key: str, *, is_kept: bool = True) -> None:
    dialog = dialog_of(page)
    dialog.get_by_label("API key").fill(key)
    dialog.get_by_label("Keep it in this browser").set_checked(is_kept)
    dialog.get_by_role("button", name="Use this key").click()


def test_a_key_is_typed_once(page: Page, live: LiveServer) -> None:
    """A wrong one is refused by name; with the right one all works, after a reload and in another tab as well."""
    page.goto("/")
    give(page, "wrong")
    field = dialog_of(page).get_by_label("API key")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    field.fill(f" {KEY} ")
    field.press("Enter")
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    submit(page)
    wait_for_end_of_painting(page)
    assert len(sockets) == 1
    assert KEY not in sockets[0], "a key is never in an address"
    job = job_ids(page)[0]
    page.reload()
    expect(page.locator("#waiting")).to_have_count(0)
    other_tab = page.context.new_page()
    open_view(other_tab, "gallery")
    expect(other_tab.locator(".gallery img")).to_have_js_property("naturalWidth", 20)
    open_view(other_tab, f"p/{job}/0")
    wait_for_end_of_painting(other_tab)
    open_view(other_tab, f"edit/{job}/0")
    expect(other_tab.locator("canvas.retouch")).to_be_visible()
    expect(dialog_of(other_tab)).to_have_count(0)


def test_the_websocket_carries_the_key_as_a_subprotocol(page: Page) -> None:
    page.add_init_script(
        """window.offers = [];
        window.WebSocket = class extends WebSocket {
          constructor(url, protocols) { super(url, protocols); window.offers.push(protocols); }
        };"""
    )
    page.goto("/")
    give(page, KEY)
    submit(page)
    wait_for_end_of_painting(page)
    text = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")
    assert page.evaluate("window.offers[0]") == ["oar.v1", f"oar.key.{text}"]


def test_a_key_for_this_tab_alone(page: Page) -> None:
    page.goto("/")
    give(page, KEY, is_kept=False)
    expect(page.locator("#waiting")).to_have_count(0)
    assert page.evaluate("Object.keys(localStorage).some((name) => localStorage[name].includes('oar-key'))") is False
    page.reload()
    expect(page.locator("#waiting")).to_have_count(0)
    other_tab = page.context.new_page()
    other_tab.goto("/")
    expect(dialog_of(other_tab)).to_be_visible()


def test_another_tenant_sees_nothing_and_a_key_is_forgotten(page: Page, live: LiveServer) -> None:
    job = live.post(wait=60, seed=7).json()["id"]
    page.goto(f"/#/p/{job}/0")
    give(page, OTHER_KEY)
    expect(page.get_by_role("heading", name="This picture is no longer here")).to_be_visible()
    page.get_by_role("button", name="API key", exact=True).click()
    page.get_by_role("button", name="Forget the key").click()
    give(page, KEY)
    wait_for_end_of_painting(page)


def test_who_has_no_key_is_told(page: Page) -> None:
    page.goto("/")
    dialog_of(page).get_by_role("button", name="Not now").click()
    expect(page.get_by_role("alert")).to_contain_text("key")
    page.get_by_role("button", name="Try again").click()
    give(page, KEY)
    expect(page.locator("#waiting")).to_have_count(0)
