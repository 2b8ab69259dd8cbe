"""The page as such: names and order of its controls, contrast, small screens, and when it is first seen."""

import re

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.studio import PROMPT, job_of, open_view, submit, wait_for
from tests.server.live import LiveServer

VIEWS = ("", "compare", "edit", "gallery")
CONTROLS = {"button", "textbox", "slider", "combobox", "radio", "checkbox", "spinbutton", "link", "DisclosureTriangle"}

# Every text that is shown: its colour over what lies behind it, both as sRGB, whether it is large (WCAG 2.2, 1.4.3).
TEXTS = """() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const read = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
    return { rgb: [red, green, blue], alpha: alpha / 255 };
  };
  const over = (front, back) => front.rgb.map((each, index) => each * front.alpha + back[index] * (1 - front.alpha));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const colour = read(getComputedStyle(element).backgroundColor);
    return colour.alpha === 1 ? colour.rgb : over(colour, ground(element.parentElement));
  };
  const opacity = (element) => (element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1);
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility()) continue;
    if (element.closest(".visually-hidden, .skip, :disabled, [aria-hidden=true]")) continue;
    const style = getComputedStyle(element);
    const back = ground(element);
    const ink = read(style.color);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    texts.push({ text, ink: over({ ...ink, alpha: ink.alpha * opacity(element) }, back), back, isLarge });
  }
  return texts;
}"""


def luminance(rgb: list[float]) -> float:
    """Relative luminance, WCAG 2.2."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in rgb)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: list[float], other: list[float]) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_reckoned_as_it_is_defined() -> None:
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([119, 119, 119], [255, 255, 255]) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [*VIEWS, "p"])
def test_every_text_can_be_read(page: Page, live: LiveServer, view: str, scheme: str) -> None:
    """At least 4.5 to 1, large text 3 to 1 (level AA)."""
    page.emulate_media(color_scheme="light" if scheme == "light" else "dark", reduced_motion="reduce")
    address = view
    if view == "p":
        address = f"p/{live.post(wait=60, seed=7).json()['id']}/0"
    elif view in {"", "gallery"}:
        open_view(page)
        submit(page)
        wait_for(page)
    if view:
        open_view(page, address)
    page.evaluate("document.querySelectorAll('details:not(.menu)').forEach((each) => (each.open = true))")
    texts = page.evaluate(TEXTS)
    assert len(texts) > 5
    poor = {
        text["text"]: round(contrast(text["ink"], text["back"]), 2)
        for text in texts
        if contrast(text["ink"], text["back"]) < (3 if text["isLarge"] else 4.5)
    }
    assert poor == {}


def test_the_dialogs_can_be_read(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        open_view(page)
        page.keyboard.press("?")
        texts = [
            text for text in page.evaluate(TEXTS) if text["text"] in {"?", "Keys", "In Edit", "Brush, eraser", "Close"}
        ]
        assert len(texts) >= 5
        assert all(contrast(text["ink"], text["back"]) >= 4.5 for text in texts)
        page.keyboard.press("Escape")


def test_tab_walks_from_top_to_bottom(page: Page) -> None:
    """Each control is reached once, in the order in which it is seen: the top, the form, the picture."""
    open_view(page)
    submit(page)
    wait_for(page)
    page.evaluate("document.activeElement.blur(); window.getSelection().removeAllRanges(); scrollTo(0, 0)")
    page.reload()
    expect(page.locator("#waiting")).to_have_count(0)
    names: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate(
            """() => {
              const at = document.activeElement;
              if (at === document.body) return "";
              return at.getAttribute("aria-label") ?? at.labels?.[0]?.innerText ?? at.innerText;
            }"""
        )
        if not name:
            break
        names.append(name.strip().partition("\n")[0])
    marks = ["Skip to the content", "OAR studio", "Create", "Gallery", "API", "Model", "Prompt", "random", "Steps",
             "Guidance", "Seed", "Pictures", "Sampling", "Paint", "Heat maps"]  # fmt: skip
    places = [names.index(mark) for mark in marks]
    assert places == sorted(places), names


@pytest.mark.parametrize("view", VIEWS)
def test_there_is_one_main_and_headings_go_down(page: Page, view: str) -> None:
    open_view(page, view)
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
    assert roles.count("main") == 1
    assert roles.count("banner") == 1
    assert roles.count("navigation") == 1
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].filter((each) => each.checkVisibility())"
        ".map((each) => each.tagName)"
    )
    assert re.fullmatch(r"H1(H2|H3)*", "".join(levels))


@pytest.mark.parametrize("view", VIEWS)
def test_every_control_has_a_name(page: Page, view: str) -> None:
    open_view(page, view)
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    client = page.context.new_cdp_session(page)
    nodes = client.send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in CONTROLS]
    assert len(controls) > 5
    nameless = [node["role"]["value"] for node in controls if not node.get("name", {}).get("value", "").strip()]
    assert nameless == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_phone_shows_it_whole(browser: Browser, live: LiveServer, view: str) -> None:
    context = browser.new_context(
        base_url=live.url, viewport={"width": 375, "height": 740}, is_mobile=True, has_touch=True
    )
    page = context.new_page()
    open_view(page, view)
    if not view:
        submit(page)
        wait_for(page)
        expect(page.locator("canvas.canvas-view").first).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    context.close()


def test_all_can_be_done_from_the_keyboard(page: Page, live: LiveServer) -> None:
    open_view(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.focus()
    page.keyboard.press("Control+a")
    page.keyboard.type(PROMPT)
    page.keyboard.press("Control+Enter")
    wait_for(page)
    expect(page.locator("#announcer")).to_contain_text("Painted in")
    assert job_of(live, page)["params"]["prompt"] == PROMPT


def test_light_and_dark(page: Page) -> None:
    open_view(page)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_what_a_prompt_says_is_never_markup(page: Page) -> None:
    evil = "<img src=x>"
    open_view(page)
    submit(page, prompt=evil)
    wait_for(page)
    page.get_by_role("link", name="Details").click()
    expect(page.get_by_role("heading", name=evil)).to_be_visible()
    assert page.locator("main img, main script").count() == 0


def test_the_first_paint_waits_for_no_other_file(page: Page) -> None:
    """The style is in the page itself: its top is seen, in its colours, while nothing else has been answered."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/studio/*", hold)
    page.goto("/", wait_until="commit")
    page.evaluate(
        """() => new Promise((resolve) => new PerformanceObserver(
          (list) => list.getEntriesByName("first-contentful-paint").length && resolve(),
        ).observe({ type: "paint", buffered: true }))"""
    )
    assert page.evaluate("getComputedStyle(document.querySelector('.top')).position") == "sticky"
    assert held, "the modules are on their way"
    for route in held:
        route.continue_()


def test_the_first_paint_is_told(page: Page, record_property) -> None:
    """Reported, not asserted: a slow machine is no fault of the page."""
    open_view(page)
    paints = page.evaluate("performance.getEntriesByType('paint').map(({ name, startTime }) => [name, startTime])")
    record_property("paint", paints)
    assert paints
