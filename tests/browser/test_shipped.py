"""The studio with the model that is shipped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.studio import job_ids, job_of, open_view, viewer, wait_for, wait_for_end_of_painting
from tests.server.live import LiveServer

WEIGHTS = Path(__file__).parents[2] / "weights"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("live"), WEIGHTS, is_gated=True) as server:
        yield server


@pytest.mark.running
def test_an_example_is_painted_and_a_long_one_is_canceled(page: Page, live: LiveServer) -> None:
    open_view(page)
    page.locator(".chip").first.click()
    page.get_by_role("button", name="Paint").click()
    wait_for_end_of_painting(page)
    job = job_of(live, page)
    assert job["params"]["prompt"] == page.get_by_label("Prompt", exact=True).input_value()
    page.locator(".tile", has_text="confidence").click()
    page.get_by_label("Steps").fill("64")
    page.get_by_label("Pictures", exact=True).fill("16")
    with live.held(3):
        page.get_by_role("button", name="Paint").click()
        expect(viewer(page)).to_have_attribute("data-state", "running")
        page.get_by_role("button", name="Cancel").click()
        wait_for(page, "canceled")
    assert len(job_ids(page)) == 1
