"""One prompt along several orders at once, and the address of such a comparison."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watched
from tests.browser.studio import PROMPT, expect_pixels, job_ids, open_view, pixels, submit, wait_for
from tests.server.live import LiveServer


def test_orders_are_compared_at_once(page: Page, live: LiveServer) -> None:
    open_view(page, "compare")
    for order in ("raster", "spiral", "halton", "random", "confidence", "distilled"):
        tile = page.locator(".tile:visible", has_text=order).locator("input")
        tile.set_checked(order in {"raster", "spiral", "confidence"})
    submit(page, "Paint them", seed=None)
    cards = page.locator(".card")
    expect(cards).to_have_count(3)
    expect(cards.locator(".status[data-state=completed]")).to_have_count(3)
    for order, card in zip(("raster", "spiral", "confidence"), cards.all()):
        expect(card.get_by_role("heading")).to_have_text(order)
        expect(card.locator(".status")).to_contain_text("8 steps, ")
    jobs = [live.client.get(f"/v1/generations/{job}").json() for job in set(job_ids(page))]
    assert {job["params"]["order"] for job in jobs} == {"raster", "spiral", "confidence"}
    assert len({(job["params"]["seed"], job["params"]["prompt"]) for job in jobs}) == 1
    slider = page.locator(".timeline:visible input")
    slider.fill("0")
    blank = [pixels(page, selector=f".card:nth-child({number}) canvas.canvas-view") for number in (1, 2, 3)]
    slider.fill("8")
    painted = [pixels(page, selector=f".card:nth-child({number}) canvas.canvas-view") for number in (1, 2, 3)]
    assert all(one != other for one, other in zip(blank, painted)), "one slider moves them all"


def test_a_comparison_takes_two_to_four_orders(page: Page) -> None:
    open_view(page, "compare")
    for tile in page.locator(".tile:visible input").all():
        tile.uncheck()
    page.locator(".tile:visible", has_text="raster").locator("input").check()
    submit(page, "Paint them")
    expect(page.get_by_text("Tick 2 to 4 orders; 1 are ticked.")).to_be_visible()


def paint_three(page: Page) -> None:
    open_view(page, "compare")
    for tile in page.locator(".tile:visible input").all():
        tile.set_checked(tile.input_value() in {"raster", "spiral", "halton"})
    submit(page, "Paint them", seed=7)
    expect(page.locator(".card .status[data-state=completed]")).to_have_count(3)


def test_a_comparison_has_an_address(page: Page) -> None:
    """It survives a reload, with its settings and its pictures, and a look at another view."""
    paint_three(page)
    address = page.url
    ids = address.partition("#/compare/")[2].split("/")
    assert sorted(ids) == sorted(job_ids(page))
    slider = page.locator(".timeline:visible input")
    expect(slider).to_have_js_property("value", "8")
    painted = [pixels(page, selector=f".card:nth-child({number}) canvas.canvas-view") for number in (1, 2, 3)]
    page.get_by_role("link", name="Create").click()
    page.get_by_role("link", name="Compare").click()
    expect(page).to_have_url(address)
    page.reload()
    expect(page.locator(".card .status[data-state=completed]")).to_have_count(3)
    expect(slider).to_have_js_property("value", "8")
    assert page.locator(".card h2").all_inner_texts() == ["raster", "spiral", "halton"]
    for number, expected in zip((1, 2, 3), painted):
        expect_pixels(page, expected, selector=f".card:nth-child({number}) canvas.canvas-view")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(PROMPT)
    expect(page.get_by_label("Seed", exact=True)).to_have_value("7")
    ticked = page.locator(".tile:visible:has(:checked)")
    assert ticked.all_inner_texts() == ["raster", "spiral", "halton"]


@pytest.mark.parametrize("gone", [1, 2])
def test_a_comparison_that_has_expired_says_so(page: Page, live: LiveServer, watched: Watched, gone: int) -> None:
    watched.expected.append("404")
    known = [live.post(wait=60, seed=7, order="spiral").json()["id"]] * (2 - gone)
    open_view(page, "/".join(["compare", *known, *["gen-gone"] * gone]))
    notice = page.get_by_role("alert")
    expired = "1 of these 2 pictures has expired." if gone == 1 else "This comparison has expired"
    expect(notice).to_contain_text(expired)
    expect(page.locator(".card .status[data-state=failed]")).to_have_count(gone)
    expect(page.locator(".card .status[data-state=completed]")).to_have_count(2 - gone)
    for card in page.locator(".card:has([data-state=failed])").all():
        expect(card).to_contain_text("Expired: the server keeps pictures for a while.")


def test_other_orders_are_held_against_a_finished_picture(page: Page, live: LiveServer) -> None:
    job = live.post(wait=60, seed=7, order="spiral", steps=5).json()
    open_view(page, f"p/{job['id']}/0")
    wait_for(page)
    page.get_by_role("link", name="Compare").last.click()
    cards = page.locator(".card")
    expect(cards).to_have_count(3)
    expect(cards.first).to_contain_text("spiral")
    expect(cards.first.locator(".status")).to_have_attribute("data-state", "completed")
    page.get_by_role("button", name="Paint them").click()
    expect(page.locator(".card .status[data-state=completed]")).to_have_count(3)
    sent = [live.client.get(f"/v1/generations/{job}").json()["params"] for job in job_ids(page)]
    assert {(params["seed"], params["steps"]) for params in sent} == {(7, 5)}


def test_an_order_more_leaves_what_is_painted(page: Page) -> None:
    paint_three(page)
    page.locator(".tile:visible", has_text="random").locator("input").check()
    expect(page.locator(".card")).to_have_count(4)
    expect(page.locator(".card .status[data-state=completed]")).to_have_count(3)


def test_a_custom_order_is_compared(page: Page, live: LiveServer) -> None:
    order = list(range(19, -1, -1))
    job = live.post(wait=60, seed=7, order=order).json()
    open_view(page, f"compare/{job['id']}")
    expect(page.locator(".card").first).to_contain_text("custom")
    submit(page, "Paint them")
    expect(page.locator(".card .status[data-state=completed]")).to_have_count(3)
    sent = [live.client.get(f"/v1/generations/{job}").json()["params"]["order"] for job in job_ids(page)]
    assert order in sent
