"""What stands in the forms: prompts that are there from the start, and settings that are taken over."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from oar_core.weights import write_manifest
from tests.browser.conftest import Watched
from tests.browser.studio import PROMPT, job_of, open_view, submit, wait_for, wait_for_end_of_painting
from tests.server.live import LiveServer
from tests.server.tiny import NAME, PROMPTS, write_tiny_weights
from tests.server.uploads import encode, picture
from tests.waiting import HANG_SECONDS

OTHER = "other"
OTHER_PROMPTS = ["a green line"]
ORDER = [*range(0, 20, 2), *range(1, 20, 2)]
DROP = """async ([selector, name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  document.querySelector(selector).dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Two models, the same but for their examples, and that the other paints in the order of its policy."""
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    shutil.copytree(folder / NAME, folder / OTHER)
    config = folder / OTHER / "config.json"
    told = json.loads(config.read_text())
    defaults = {**told["defaults"], "order": "distilled"}
    config.write_text(json.dumps({**told, "name": OTHER, "example_prompts": OTHER_PROMPTS, "defaults": defaults}))
    write_manifest(folder, NAME, {NAME: "Apache-2.0", OTHER: "Apache-2.0"})
    with LiveServer(tmp_path_factory.mktemp("live"), folder, OAR_MODELS=f"{NAME},{OTHER}") as server:
        yield server


def test_one_click_paints(page: Page, live: LiveServer) -> None:
    open_view(page)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(PROMPTS[0])
    page.get_by_role("button", name="Paint").click()
    wait_for(page)
    assert job_of(live, page)["params"]["prompt"] == PROMPTS[0]


def test_a_number_that_is_0_for_all_says_so_in_words(page: Page) -> None:
    open_view(page)
    page.locator("form.panel:visible").get_by_text("Sampling").click()
    top_k = page.locator("form.panel:visible").get_by_label("Top-k")
    expect(top_k).to_have_value("")
    expect(top_k).to_have_attribute("placeholder", "0 is all")


def test_an_example_follows_the_model_and_what_was_typed_stays(page: Page) -> None:
    open_view(page)
    prompt, model = page.get_by_label("Prompt", exact=True), page.get_by_label("Model")
    model.select_option(OTHER)
    expect(prompt).to_have_value(OTHER_PROMPTS[0])
    model.select_option(NAME)
    expect(prompt).to_have_value(PROMPTS[0])
    prompt.fill("my own words")
    model.select_option(OTHER)
    expect(prompt).to_have_value("my own words")
    page.reload()
    expect(prompt).to_have_value("my own words")
    page.get_by_role("link", name="Compare").click()
    expect(page.locator("form.panel:visible").get_by_label("Prompt", exact=True)).to_have_value("my own words")
    page.locator("form.panel:visible").get_by_label("Prompt", exact=True).fill("")
    open_view(page)
    page.reload()
    expect(prompt).to_have_value(PROMPTS[0])


def test_a_word_that_the_model_has_never_seen_is_told(page: Page) -> None:
    open_view(page)
    page.get_by_label("Prompt", exact=True).fill("a red cat")
    page.get_by_role("button", name="Paint").click()
    expect(page.get_by_role("alert")).to_have_text("'cat' is not in this model's vocabulary.")
    wait_for(page)
    page.get_by_label("Prompt", exact=True).fill("a red circle")
    page.get_by_role("button", name="Paint").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    wait_for(page)


def test_a_picture_is_revised_where_the_form_asks_for_it(page: Page, live: LiveServer) -> None:
    open_view(page)
    page.get_by_text("Sampling").click()
    page.get_by_label("Revise").fill("5")
    page.get_by_role("button", name="Paint").click()
    wait_for(page)
    job = job_of(live, page)
    assert job["params"]["revise"] == 5
    assert "revised" in {event["type"] for event in live.events(job["id"])}


def test_the_chosen_order_is_explained(page: Page) -> None:
    open_view(page)
    hint = page.locator("fieldset .hint")
    for order in page.locator(".tile input").all():
        order.check(force=True)
        expect(hint).not_to_be_empty()
    page.get_by_label("Model").select_option(OTHER)
    expect(page.locator(".tile:visible:has(:checked)")).to_have_text("distilled")
    expect(hint).to_have_text("Where the model is surest, as its order policy has learned.")
    open_view(page, "compare")
    page.locator("form.panel:visible").get_by_label("Model").select_option(OTHER)
    expect(page.locator(".card h2")).to_have_text(["raster", "random", "distilled"])


def test_a_seed_is_used_again(page: Page, live: LiveServer) -> None:
    open_view(page)
    submit(page, seed=None)
    wait_for(page)
    seed = job_of(live, page)["params"]["seed"]
    page.get_by_role("button", name=f"last: {seed}").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(seed))


def test_another_like_it_has_all_settings(page: Page, live: LiveServer) -> None:
    """Also an order that has no name; and from the JSON and from the command, the same picture."""
    wanted = {
        "prompt": PROMPT, "seed": 2**60 + 1, "order": ORDER, "steps": 5, "group_sizes": "adaptive",
        "entropy_bound": 4.0, "candidates": 4, "guidance": 3.0, "temperature": 0.9, "top_k": 12, "top_p": 0.9, "n": 2,
        "model": OTHER, "guidance_interval": [0.25, 0.75], "guidance_schedule": "linear",
        "repulsion": 1, "revise": 0,
    }  # fmt: skip
    job = live.post(wait=60, **wanted).json()
    open_view(page, f"p/{job['id']}/1")
    wait_for(page)
    page.get_by_text("The request as JSON").click()
    told = page.locator("pre").inner_text()
    assert json.loads(told) == wanted
    assert f'"order": [{", ".join(map(str, ORDER))}]' in told, "in one line"
    page.get_by_role("button", name="Paint another like it").click()
    expect(page.locator(".tile:visible:has(:checked)")).to_have_text("custom")
    page.get_by_role("button", name="Paint", exact=True).click()
    wait_for(page)
    again = job_of(live, page)
    assert {name: again["params"][name] for name in wanted} == wanted
    assert live.png(again["id"], 1) == live.png(job["id"], 1)
    page.locator(".tile:visible", has_text="raster").click()
    page.locator(".tile:visible", has_text="custom").click()
    page.get_by_role("button", name="Paint", exact=True).click()
    wait_for(page)
    assert job_of(live, page)["params"]["order"] == ORDER


def test_the_request_as_a_command(page: Page, live: LiveServer) -> None:
    job = live.post(wait=60, seed=7, order=ORDER, prompt="it's red").json()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_view(page, f"p/{job['id']}/0")
    page.get_by_text("The request as JSON").click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    answer = run_shell(command)
    again = json.loads(answer)
    assert again["params"]["order"] == ORDER
    assert again["params"]["prompt"] == "it's red"


def test_an_option_that_a_model_has_is_in_the_form(page: Page, watched: Watched) -> None:
    """The form is made from what `GET /v1/models` says, and knows no option by itself."""
    watched.expected = ["422"]
    sent: list[dict[str, object]] = []

    def with_another(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        extra = {
            "name": "sharpness", "group": "sampling", "label": "Sharpness", "description": "How sharp edges are",
            "kind": "number", "is_pair": False, "default": 1.5, "minimum": 0, "above": None, "maximum": 5,
            "choices": [], "usual": [0, 5, 0.5], "unit": "", "only": ["group_sizes", "linear"],
        }  # fmt: skip
        for model in told["data"]:
            model["options"].append(extra)
        route.fulfill(response=answer, json=told)

    def note(route: Route) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(status=422, json={"error": {"code": "x", "message": "noted", "field": "sharpness", "type": "x"}})

    page.route("**/v1/models", with_another)
    page.route("**/v1/generations", note)
    open_view(page)
    page.reload()
    page.get_by_text("Sampling").click()
    slider = page.get_by_label("Sharpness")
    expect(slider).to_be_hidden()
    page.get_by_label("Group sizes").select_option("linear")
    expect(slider).to_have_value("1.5")
    expect(slider).to_have_attribute("title", "How sharp edges are")
    slider.fill("4")
    page.get_by_label("Avoid").fill("a red circle")
    page.get_by_role("button", name="Paint").click()
    expect(slider).to_have_attribute("aria-invalid", "true")
    assert (sent[0]["sharpness"], sent[0]["negative_prompt"]) == (4, "a red circle")


def run_shell(command: str) -> str:
    done = subprocess.run(
        ["sh", "-c", f"{command} -s"], capture_output=True, text=True, timeout=HANG_SECONDS, check=True
    )
    return done.stdout


def test_settings_are_taken_from_a_file(page: Page, live: LiveServer) -> None:
    """From a picture that a server painted, or its JSON, dropped on Create; any other picture is one to edit."""
    job = live.post(wait=60, seed=2**60 + 1, order=ORDER, prompt="a dropped prompt").json()
    request = json.dumps({"prompt": "a prompt from JSON", "order": "spiral"}).encode()
    for name, kind, data, prompt, order in (
        ("a.png", "image/png", live.png(job["id"]), "a dropped prompt", "custom"),
        ("a.json", "application/json", request, "a prompt from JSON", "spiral"),
    ):
        open_view(page)
        page.evaluate(DROP, ["main", name, kind, base64.b64encode(data).decode()])
        expect(page.get_by_label("Prompt", exact=True)).to_have_value(prompt)
        expect(page.locator(".tile:visible:has(:checked)")).to_have_text(order)
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(2**60 + 1))
    page.evaluate(DROP, ["main", "b.png", "image/png", base64.b64encode(encode(picture())).decode()])
    expect(page.locator("canvas.retouch")).to_be_visible()
    page.evaluate(DROP, ["main", "b.txt", "text/plain", ""])
    expect(page.get_by_role("alert").locator("visible=true")).to_have_text("This is no picture.")


def test_keys_of_the_page(page: Page, live: LiveServer) -> None:
    open_view(page)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_contain_text("Play or pause")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.keyboard.press("Control+Enter")
    wait_for_end_of_painting(page)
    reading = page.locator(".timeline:visible .reading")
    page.keyboard.press("ArrowLeft")
    expect(reading).to_have_text("7 / 8")
    page.keyboard.press("Home")
    expect(reading).to_have_text("0 / 8")
    page.keyboard.press("Space")
    expect(reading).to_have_text("8 / 8")
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type("?")
    expect(dialog).to_have_count(0)
    page.locator(".viewer:visible").get_by_role("link", name="Edit").click()
    expect(page.locator("canvas.retouch")).to_be_visible()
    page.locator("canvas.retouch").focus()
    page.keyboard.press("e")
    expect(page.get_by_role("button", name="Eraser")).to_have_attribute("aria-pressed", "true")
    before = int(page.get_by_role("slider", name="Size", exact=True).input_value())
    page.keyboard.press("]")
    expect(page.get_by_role("slider", name="Size", exact=True)).to_have_value(str(before + 1))
    page.get_by_role("button", name="Repaint").click()
    expect(page.get_by_role("alert").locator("visible=true")).to_have_text("Brush over what is to change first.")
