"""A model of classes in the studio: a search box in place of the prompt, and which class is painted."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from oar_core.weights import write_manifest
from tests.browser.studio import job_of, open_view, wait_for
from tests.models.folders import CLASS_NAMES, write_golden_model, write_unconditional_model
from tests.server.live import LiveServer
from tests.server.tiny import NAME, write_tiny_weights

CLASSES, NOTHING = "arpg", "of-nothing"
HEIGHT = "(element) => element.getBoundingClientRect().height"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    write_golden_model(CLASSES, folder / CLASSES)
    write_unconditional_model(folder / NOTHING)
    write_manifest(folder, NAME, {NAME: "Apache-2.0", CLASSES: "MIT", NOTHING: "MIT"})
    with LiveServer(tmp_path_factory.mktemp("live"), folder, OAR_MODELS=f"{NAME},{CLASSES},{NOTHING}") as server:
        yield server


def test_classes_are_searched_where_the_model_has_them(page: Page, live: LiveServer) -> None:
    open_view(page)
    search, prompt = page.get_by_label("Class", exact=True), page.get_by_label("Prompt", exact=True)
    expect(prompt).to_be_visible()
    expect(search).to_be_hidden()
    page.get_by_label("Model").select_option(CLASSES)
    expect(prompt).to_be_hidden()
    expect(search).to_be_visible()
    model = page.locator("select:visible").first
    assert search.evaluate(HEIGHT) == model.evaluate(HEIGHT)
    options = page.locator("datalist option")
    expect(options).to_have_count(len(CLASS_NAMES))
    assert [options.nth(number).get_attribute("value") for number in range(3)] == list(CLASS_NAMES[:3])
    search.fill("hen")
    page.get_by_role("button", name="Paint").click()
    wait_for(page)
    drawn = job_of(live, page)["params"]["drawn_class"]
    assert drawn == {"name": "hen", "index": CLASS_NAMES.index("hen"), "is_exact": True}
    page.get_by_label("Model").select_option(NAME)
    expect(search).to_be_hidden()
    expect(prompt).to_be_visible()


def test_the_nearest_class_is_painted_and_said(page: Page, live: LiveServer) -> None:
    open_view(page)
    page.get_by_label("Model").select_option(CLASSES)
    search = page.get_by_label("Class", exact=True)
    search.fill("a gold fish")
    page.get_by_role("button", name="Paint").click()
    wait_for(page)
    expect(search).to_have_value("goldfish")
    notice = page.get_by_text("this is the nearest, “goldfish”")
    expect(notice).to_be_visible()
    expect(notice).to_have_class("notice mild")  # not as an error
    assert job_of(live, page)["params"]["drawn_class"]["index"] == CLASS_NAMES.index("goldfish")


def test_words_that_are_like_no_class_are_marked(page: Page, watched: object) -> None:
    watched.expected.append("422")  # type: ignore[attr-defined]
    open_view(page)
    page.get_by_label("Model").select_option(CLASSES)
    search = page.get_by_label("Class", exact=True)
    search.fill("quantum chromodynamics")
    page.get_by_role("button", name="Paint").click()
    expect(search).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("is no class of this model")).to_be_visible()


def test_a_model_without_a_condition_asks_for_nothing(page: Page, live: LiveServer) -> None:
    open_view(page)
    page.get_by_label("Prompt", exact=True).fill("what stays in the form")
    page.get_by_label("Model").select_option(NOTHING)
    for label in ("Prompt", "Class", "Guidance"):
        expect(page.get_by_label(label, exact=True)).to_be_hidden()
    page.get_by_role("button", name="Paint").click()
    wait_for(page)
    params = job_of(live, page)["params"]
    assert (params["model"], params["prompt"]) == (NOTHING, "")
