"""A model that writes row by row beside one that has a choice: the studio offers of each what it can do."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from oar_core.weights import write_manifest
from tests.browser.studio import open_view, wait_for
from tests.models.folders import write_golden_model
from tests.server.live import LiveServer
from tests.server.tiny import NAME, write_tiny_weights

RASTER = "llamagen"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    write_golden_model(RASTER, folder / RASTER)
    write_manifest(folder, NAME, dict.fromkeys((NAME, RASTER), "MIT"))
    with LiveServer(tmp_path_factory.mktemp("live"), folder, OAR_MODELS=f"{NAME},{RASTER}") as server:
        yield server


def test_what_a_model_has_no_choice_of_is_not_in_its_form(page: Page) -> None:
    open_view(page)
    page.get_by_text("Sampling").click()
    choices = [page.get_by_label("Steps"), page.get_by_label("Group sizes"), page.locator(".tiles:visible")]
    for choice in choices:
        expect(choice).to_be_visible()
    expect(page.get_by_label("Repulsion")).to_be_hidden()  # the order is not one that the model chooses
    page.locator(".tile:visible", has_text="confidence").click()
    expect(page.get_by_label("Repulsion")).to_be_visible()
    expect(page.locator("output:visible", has_text="none")).to_have_count(2)  # of repulsion and revise
    page.get_by_label("Model").select_option(RASTER)
    for choice in (*choices, page.get_by_label("Repulsion")):
        expect(choice).to_be_hidden()
    expect(page.locator(".empty:visible")).to_have_text("Press Paint and watch: it comes patch by patch.")
    page.get_by_role("button", name="Paint").click()
    wait_for(page)
    expect(page.get_by_role("link", name="Details")).to_be_visible()
    for name in ("Edit", "Compare"):
        expect(page.locator(".tools").get_by_role("link", name=name)).to_have_count(0)


@pytest.mark.parametrize("view", ["edit", "compare"])
def test_edits_and_comparisons_are_offered_for_models_that_can(page: Page, view: str) -> None:
    open_view(page, view)
    expect(page.get_by_label("Model").locator("visible=true").locator("option")).to_have_text([NAME])


def test_where_no_model_can_edit_there_is_no_way_to_it(page: Page) -> None:
    def raster_alone(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        told["data"] = [model for model in told["data"] if model["id"] == RASTER]
        route.fulfill(response=answer, json=told)

    page.route("**/v1/models", raster_alone)
    open_view(page, "edit")
    page.reload()
    expect(page).to_have_title("Create · OAR studio")
    navigation = page.get_by_role("navigation")
    expect(navigation.get_by_role("link", name="Create")).to_be_visible()
    expect(navigation.get_by_role("link", name="Gallery")).to_be_visible()
    for name in ("Edit", "Compare"):
        expect(navigation.get_by_role("link", name=name)).to_be_hidden()
