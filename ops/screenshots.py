"""The studio's pictures in docs/: `python -m ops.screenshots` starts `oar serve` and does what a reader would do.

Needs the extra `test` and Chromium. Text is set in Inter where that is installed, else in the system's own letters.
"""

import os
import shutil
from pathlib import Path

import click
from playwright.sync_api import Browser, Page, expect, sync_playwright

from oar_lab.bench.server.own_server import own_server

WIDE, PHONE = (1360, 860), (390, 844)
SEED = "7"
TIMEOUT = 60_000  # milliseconds
FADE = 1500  # milliseconds after which no mark of a patch is left
HAIR = "a person with a long purple braid, brown shirt and blue trousers, walking, seen from the front"


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("docs"), show_default=True)
@click.option("--weights", type=click.Path(path_type=Path, file_okay=False), default=Path("weights"))
def take_screenshots(out: Path, weights: Path) -> None:
    """Writes studio-*.png."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise click.ClickException("Chromium is not installed")
    settings = {"OAR_WEIGHTS_DIR": str(weights)}
    with own_server(settings) as server, sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        for scheme in ("light", "dark"):
            shoot_create(open_page(browser, server.url, scheme), out / f"studio-create-{scheme}.png")
        shoot_compare(open_page(browser, server.url, "dark"), out / "studio-compare.png")
        shoot_edit(open_page(browser, server.url, "light"), out / "studio-edit.png")
        phone(open_page(browser, server.url, "light", is_phone=True), out / "studio-phone.png")
        browser.close()


def open_page(browser: Browser, url: str, scheme: str, *, is_phone: bool = False) -> Page:
    width, height = PHONE if is_phone else WIDE
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=2,
        is_mobile=is_phone,
        has_touch=is_phone,
    )
    context.set_default_timeout(TIMEOUT)
    expect.set_options(timeout=TIMEOUT)
    return context.new_page()


def shoot_create(page: Page, path: Path) -> None:
    page.goto("/")
    page.locator(".chip").first.click()
    page.get_by_label("Pictures", exact=True).fill("6")
    press(page, "Paint")
    finish(page, path)


def shoot_compare(page: Page, path: Path) -> None:
    page.goto("/#/compare")
    page.locator(".chip").nth(1).click()
    for tile in page.locator(".tile:visible input").all():
        tile.set_checked(tile.input_value() in {"raster", "random", "halton", "distilled"})
    press(page, "Paint them")
    expect(page.locator(".card .status[data-state=completed]")).to_have_count(4)
    finish(page, path)


def shoot_edit(page: Page, path: Path) -> None:
    """A mask over a head, before it is painted anew."""
    page.goto("/")
    page.locator(".chip").first.click()
    press(page, "Paint")
    expect(page.locator(".viewer")).to_have_attribute("data-state", "completed")
    page.get_by_role("link", name="Edit").last.click()
    expect(page.locator("canvas.retouch")).to_be_visible()
    page.locator("form.panel:visible").get_by_label("Prompt").fill(HAIR)
    box = page.locator("canvas.retouch").bounding_box()
    assert box is not None
    points = [(0.4, 0.24), (0.6, 0.24), (0.6, 0.34), (0.4, 0.34)]
    for number, (right, down) in enumerate(points):
        page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"], steps=8)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    page.screenshot(path=path)
    page.context.close()


def phone(page: Page, path: Path) -> None:
    page.goto("/")
    page.locator(".chip").nth(4).click()
    press(page, "Paint")
    expect(page.locator(".viewer")).to_have_attribute("data-state", "completed")
    finish(page, path)


def press(page: Page, label: str) -> None:
    page.get_by_label("Seed", exact=True).fill(SEED)
    page.get_by_role("button", name=label, exact=True).click()


def finish(page: Page, path: Path) -> None:
    slider = page.locator(".timeline:visible input")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(slider).to_have_js_property("value", slider.get_attribute("max"))
    page.mouse.move(0, 0)
    page.wait_for_timeout(FADE)
    page.screenshot(path=path)
    page.context.close()


if __name__ == "__main__":
    take_screenshots()
