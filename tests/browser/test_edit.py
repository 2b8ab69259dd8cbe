"""Editing in the studio, against a server with a tiny model."""

import base64
import io

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.studio import (
    job_ids,
    job_of,
    open_view,
    submit,
    wait_for,
)
from tests.server.live import LiveServer
from tests.server.uploads import encode, picture


def test_a_brush_repaints_what_it_covers_and_nothing_else(page: Page, live: LiveServer) -> None:
    source = live.post(wait=60, seed=7).json()
    before = np.asarray(Image.open(io.BytesIO(live.png(source["id"]))))
    open_view(page, f"edit/{source['id']}/0")
    canvas = page.locator("canvas.retouch")
    expect(page.locator(".count-row")).to_contain_text("No patch is marked yet")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.4, steps=4)
    page.mouse.up()
    expect(page.locator(".count-row")).to_contain_text("2 of 20 patches will be rewritten")
    submit(page, "Repaint", seed=99)
    wait_for(page)
    job = job_of(live, page)
    assert job["params"]["edit"]["mode"] == "inpaint"
    assert job["params"]["edit"]["num_kept"] == 18
    after = np.asarray(Image.open(io.BytesIO(live.png(job["id"]))))
    changed = (before != after).any(-1)
    assert changed[4:8, 4:12].any()
    changed[4:8, 4:12] = False
    assert not changed.any(), "known pixels stay"


def test_the_mask_without_a_pointer(page: Page, live: LiveServer) -> None:
    source = live.post(wait=60, seed=7).json()
    open_view(page, f"edit/{source['id']}/0")
    canvas, count = page.locator("canvas.retouch"), page.locator(".count-row")
    canvas.focus()
    for key in (" ", "ArrowRight", " ", "ArrowDown", " "):
        canvas.press(key)
    expect(count).to_contain_text("3 of 20 patches")
    page.get_by_role("button", name="Undo").click()
    expect(count).to_contain_text("2 of 20 patches")
    page.get_by_role("button", name="Invert").click()
    expect(count).to_contain_text("18 of 20 patches")
    page.get_by_role("button", name="Clear").click()
    expect(count).to_contain_text("No patch is marked yet")
    page.keyboard.press("Control+z")
    expect(count).to_contain_text("18 of 20 patches")


def test_pixels_can_be_masked_one_by_one(page: Page, live: LiveServer) -> None:
    """Without snapping the patch is rewritten, and its other pixels stay all the same."""
    source = live.post(wait=60, seed=7).json()
    before = np.asarray(Image.open(io.BytesIO(live.png(source["id"]))))
    open_view(page, f"edit/{source['id']}/0")
    page.get_by_label("Snap to patches").uncheck()
    page.get_by_role("slider", name="Size", exact=True).fill("1")
    box = page.locator("canvas.retouch").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.325, box["y"] + box["height"] * 0.41)
    page.get_by_role("button", name="Eraser").click()
    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.9)
    expect(page.locator(".count-row")).to_contain_text("1 of 20 patches will be rewritten")
    submit(page, "Repaint", seed=3)
    wait_for(page)
    after = np.asarray(Image.open(io.BytesIO(live.png(job_ids(page)[0]))))
    assert 0 < (before != after).any(-1).sum() < 16


def test_an_upload_is_varied_and_extended(page: Page, live: LiveServer) -> None:
    open_view(page, "edit")
    data = encode(picture((60, 48), seed=4))
    page.get_by_label("Choose a picture").set_input_files(
        {"name": "noise.png", "mimeType": "image/png", "buffer": data}
    )
    page.get_by_label("Vary").check(force=True)
    expect(page.locator(".count-row")).to_contain_text("All 20 patches may change")
    page.get_by_label("Strength").fill("0.3")
    submit(page, "Vary")
    wait_for(page)
    assert job_of(live, page)["params"]["edit"] == {
        "mode": "vary", "offset": [0, 0], "strength": 0.3, "feather": 0, "num_kept": 14,
    }  # fmt: skip
    page.get_by_role("button", name="Back to the mask").click()
    page.get_by_label("Extend").check(force=True)
    page.locator("canvas.retouch").press("ArrowDown")
    page.locator("canvas.retouch").press("ArrowRight")
    expect(page.locator(".count-row")).to_contain_text("12 of 20 patches will be painted")
    submit(page, "Extend")
    expect(page.get_by_role("button", name="Extend")).to_be_visible()  # and no longer "Cancel"
    wait_for(page)
    assert len(job_ids(page)) == 2
    edit = job_of(live, page)["params"]["edit"]
    assert (edit["mode"], edit["offset"], edit["num_kept"]) == ("outpaint", [8, 4], 8)


def test_pictures_are_dropped_and_pasted(page: Page) -> None:
    open_view(page, "edit")
    data = base64.b64encode(encode(picture())).decode()
    for kind, target in (("drop", ".stage"), ("paste", "document")):
        page.evaluate(
            """([kind, target, data]) => {
              const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
              const transfer = new DataTransfer();
              transfer.items.add(new File([bytes], "a.png", { type: "image/png" }));
              const place = target === "document" ? document : document.querySelector(target);
              place.dispatchEvent(kind === "drop"
                ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
            }""",
            [kind, target, data],
        )
        expect(page.locator("canvas.retouch")).to_be_visible()
        page.get_by_role("button", name="Other picture").click()
        expect(page.get_by_role("button", name="Choose a file")).to_be_visible()


def test_a_file_that_is_no_picture(page: Page) -> None:
    open_view(page, "edit")
    page.get_by_label("Choose a picture").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    expect(page.get_by_role("alert")).to_have_text("This file is no picture that the browser can read.")
