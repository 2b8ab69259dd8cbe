"""Families that are not the native one: imported by the command line, and served by the same worker beside it."""

import base64
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from openai import OpenAI
from PIL import Image

from oar_client import BadRequest, Client
from oar_core.models.load import load_model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.weights import write_manifest
from tests.importing.command import Importing
from tests.models.folders import BACKBONES, CLASS_NAMES, NUM_TOKENS, RASTER_ONLY
from tests.server.live import ROOT, LiveServer, wait_for_patches
from tests.server.tiny import NAME, write_tiny_weights
from tests.waiting import wait_for

FAMILIES = sorted(BACKBONES)
SHIPPED = "sprites-64"
STARTED_SEQ = 2  # of the event `started`, behind `queued`
ANY_ORDER = [family for family in FAMILIES if family not in RASTER_ONLY]
# What each family can be asked for: two orders where it has a choice.
PATHS = [
    *((family, "halton", 5, "cosine") for family in ANY_ORDER),
    *((family, "random", 5, "published") for family in ANY_ORDER),
    *((family, "raster", NUM_TOKENS, "constant") for family in RASTER_ONLY),
]


@pytest.fixture(scope="module")
def many_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny native model, and each golden checkpoint as `oar import` makes a model of it."""
    folder = tmp_path_factory.mktemp("import")
    weights = folder / "weights"
    weights.mkdir()
    write_tiny_weights(weights)
    for family in FAMILIES:
        job = Importing(folder, family)
        done = job.run(job.pickled({"model": job.state()}), None, "--name", family)
        assert done.exit_code == 0, done.output
    write_manifest(weights, NAME, dict.fromkeys((NAME, *FAMILIES), "MIT"))
    return weights


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, many_weights: Path) -> Iterator[LiveServer]:
    names = ",".join((NAME, *FAMILIES))
    with LiveServer(tmp_path_factory.mktemp("families"), many_weights, OAR_MODELS=names) as live:
        yield live


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def steps_of(family: str) -> int:
    return NUM_TOKENS if family in RASTER_ONLY else 8


def drawn_alone(weights: Path, family: str, *, prompt: str, plan: PlanSpec, guidance: float, seed: int, image: int):
    """Pixels by the reference loop."""
    model = load_model(weights / family, "cpu", torch.float32)
    sampling = SamplingParams(guidance=guidance, guidance_schedule="linear")
    request = SequenceRequest("alone", model.encode_prompt(prompt), seed, image, plan, sampling)
    (tokens,) = generate(model.backbone, [request], model.unconditional_ids)
    return tokens, model.decode(torch.tensor([tokens]))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_says_nothing_gets_the_published_recipe(server: LiveServer, many_weights: Path, family: str) -> None:
    model = load_model(many_weights / family, "cpu", torch.float32)
    job = server.submit(model=family, prompt="hen", seed=5, n=1)
    params = server.client.get(f"/v1/generations/{job['id']}").json()["params"]
    assert {name: params[name] for name in model.defaults} == model.defaults
    events = server.events(job["id"])
    sizes = [len(event["patches"]) for event in events if event["type"] == "patches"]
    published = model.backbone.spec.published_groups
    if published is not None and model.defaults["group_sizes"] == "published":
        assert sizes == list(published(model.defaults["steps"], NUM_TOKENS) or sizes)
    request = SequenceRequest("alone", model.encode_prompt("hen"), 5, 0, default_plan(model), default_sampling(model))
    (wanted,) = generate(model.backbone, [request], model.unconditional_ids)
    told = [(patch["position"], patch["token"]) for e in events if e["type"] == "patches" for patch in e["patches"]]
    assert sorted(told) == list(enumerate(wanted))


def test_the_catalogue_says_what_each_family_can_do(server: LiveServer) -> None:
    models = {entry["id"]: entry for entry in server.client.get("/v1/models").json()["data"]}
    assert set(models) == {NAME, *FAMILIES}
    for family in FAMILIES:
        assert models[family]["grid"] == [4, 4]
        assert models[family]["image_size"] == [8, 8]
        assert "adaptive" not in models[family]["group_sizes"]
        assert "distilled" not in models[family]["orders"]
    for family in ANY_ORDER:
        assert ("confidence" in models[family]["orders"]) == (family == "arpg")
        assert (models[family]["can_edit"], models[family]["has_fixed_steps"]) == (True, False)
    for family in RASTER_ONLY:
        assert (models[family]["orders"], models[family]["group_sizes"]) == (["raster"], ["constant"])
        assert (models[family]["can_edit"], models[family]["has_fixed_steps"]) == (False, True)
        options = {option["name"]: option for option in models[family]["options"]}
        assert options["steps"]["minimum"] == options["steps"]["maximum"] == options["steps"]["default"] == NUM_TOKENS


@pytest.mark.parametrize("family", RASTER_ONLY)
def test_a_list_of_group_sizes_is_refused_by_a_model_of_one_position_a_step(server: LiveServer, family: str) -> None:
    """At once: it was accepted, and the job failed."""
    answer = server.post(model=family, prompt=CLASS_NAMES[0], group_sizes=[NUM_TOKENS // 2] * 2)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "group_sizes")
    assert server.post(model=family, prompt=CLASS_NAMES[0], group_sizes=[1] * NUM_TOKENS).status_code == 202


def test_the_client_asks_for_a_class_without_a_prompt(server: LiveServer) -> None:
    with Client(server.url) as client:
        made = client.generate(model="arpg", condition={"class": "hen"})
        assert made.params.drawn_class is not None
        assert made.params.drawn_class.index == CLASS_NAMES.index("hen")
        with pytest.raises(BadRequest):
            client.submit(model="arpg")


@pytest.mark.parametrize(("family", "order", "steps", "groups"), PATHS)
def test_pictures_made_at_once_are_those_of_the_reference_loop(
    server: LiveServer, many_weights: Path, family: str, order: str, steps: int, groups: str
) -> None:
    plan = PlanSpec(order, steps, groups)
    asked = {"model": family, "order": order, "steps": steps, "group_sizes": groups, "guidance": 3.0, "seed": 21}
    asked["guidance_schedule"] = "linear"
    jobs = [server.submit(**asked, prompt=CLASS_NAMES[number], n=2) for number in range(4)]
    native = server.submit(model=NAME, steps=6)
    for number, job in enumerate(jobs):
        events = server.events(job["id"])
        for image in range(2):
            told = [
                (patch["position"], patch["token"])
                for event in events
                if event["type"] == "patches" and event["image"] == image
                for patch in event["patches"]
            ]
            wanted, painted = drawn_alone(
                many_weights, family, prompt=str(number), plan=plan, guidance=3.0, seed=21, image=image
            )
            assert sorted(told) == list(enumerate(wanted))
            assert np.array_equal(pixels(server.png(job["id"], image)), painted)
    assert server.events(native["id"])[-1]["type"] == "completed"


@pytest.mark.running
def test_pictures_of_all_families_go_on_where_their_worker_was_killed(
    server: LiveServer, many_weights: Path, tmp_path: Path
) -> None:
    asked = {"prompt": "hen", "n": 12, "guidance": 3.0, "seed": 4, "previews": False}
    bodies = {family: {"model": family, "steps": steps_of(family), **asked} for family in FAMILIES}
    undisturbed = {family: server.submit(**body)["id"] for family, body in bodies.items()}
    settings = {"OAR_MODELS": ",".join((NAME, *FAMILIES)), "OAR_SLOTS": "2"}
    with LiveServer(tmp_path, many_weights, is_gated=True, **settings) as other:
        with other.held() as gate:
            jobs = {family: other.submit(**body)["id"] for family, body in bodies.items()}
            for job in jobs.values():
                wait_for(lambda job=job: other.client.get(f"/v1/generations/{job}").json()["status"] == "running")
            gate.allow(20 * len(FAMILIES))
            for job in jobs.values():
                wait_for_patches(other, job, 1)
            (pid,) = wait_for(lambda: other.children("worker"))
            os.kill(pid, signal.SIGKILL)
        for family, job in jobs.items():
            events = other.events(job)
            positions = [
                (event["image"], patch["position"])
                for event in events
                if event["type"] == "patches"
                for patch in event["patches"]
            ]
            assert sorted(positions) == [(image, position) for image in range(12) for position in range(NUM_TOKENS)]
            assert "restarted" in {event["type"] for event in events}
            server.events(undisturbed[family])
            for image in range(12):
                assert other.png(job, image) == server.png(undisturbed[family], image)


@pytest.mark.running
@pytest.mark.skipif(not (ROOT / "weights" / SHIPPED).exists(), reason="the weights that are shipped are not there")
def test_one_worker_serves_them_beside_the_shipped_model_and_all_survive_its_death(
    many_weights: Path, tmp_path: Path
) -> None:
    """Jobs of three models are streamed at once; their worker is killed while each is half done."""
    folders = {SHIPPED: ROOT / "weights" / SHIPPED, **{family: many_weights / family for family in ANY_ORDER}}
    weights = tmp_path / "weights"
    weights.mkdir()
    for name, folder in folders.items():
        (weights / name).symlink_to(folder)
    write_manifest(weights, SHIPPED, dict.fromkeys(folders, "MIT"))
    options = {"OAR_MODELS": ",".join(folders), "OAR_DETERMINISTIC": "true", "OAR_LEASE_SECONDS": "1"}
    with LiveServer(tmp_path, weights, is_gated=True, **options) as live:
        prompts = {entry["id"]: entry["example_prompts"][0] for entry in live.client.get("/v1/models").json()["data"]}
        asked = [
            {"model": name, "prompt": prompts[name], "steps": 16, "order": "random", "seed": 4, "guidance": 2.0}
            for name in folders
        ]
        undisturbed = [live.submit(**body, previews=False)["id"] for body in asked]
        wanted = [told_tokens(live.events(job)) for job in undisturbed]
        pictures = [live.png(job) for job in undisturbed]
        with live.held() as gate:
            jobs = [live.submit(**body, previews=False)["id"] for body in asked]

            def has_begun(job: str) -> bool:
                gate.allow(1)
                return live.client.get(f"/v1/generations/{job}").json()["seq"] > STARTED_SEQ

            for job in jobs:
                wait_for(lambda job=job: has_begun(job))
            states = {live.client.get(f"/v1/generations/{job}").json()["status"] for job in jobs}
            (pid,) = live.children("worker")
            os.kill(pid, signal.SIGKILL)
        events = [live.events(job) for job in jobs]
        assert states == {"running"}
        assert [event["type"] for job in events for event in job].count("restarted") == len(folders)
        assert [told_tokens(job) for job in events] == wanted
        assert [live.png(job) for job in jobs] == pictures


def told_tokens(events: list[dict]) -> list[tuple[int, int]]:
    """Positions and tokens in the order in which they were streamed; no position comes twice."""
    patches = [patch for event in events if event["type"] == "patches" for patch in event["patches"]]
    assert len({patch["position"] for patch in patches}) == len(patches)
    return [(patch["position"], patch["token"]) for patch in patches]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_the_same_whether_or_not_it_is_shown_before_it_is_done(server: LiveServer, family: str) -> None:
    drawing = {"steps": steps_of(family), "guidance": 3.0, "seed": 11}
    plain = server.submit(model=family, prompt="hen", previews=False, **drawing)
    server.events(plain["id"])
    with OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        stream = client.images.generate(model=family, prompt="hen", stream=True, partial_images=3, extra_body=drawing)
        *partials, completed = list(stream)
    assert len(partials) == 3
    pictures = [pixels(base64.b64decode(event.b64_json)) for event in (*partials, completed)]
    assert all(picture.shape == (8, 8, 3) for picture in pictures)
    assert np.array_equal(pictures[-1], pixels(server.png(plain["id"])))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_is_named_or_the_nearest_is_drawn_and_said(server: LiveServer, family: str) -> None:
    asked = {"model": family, "seed": 3, "steps": steps_of(family), "previews": False}
    said = [
        {"prompt": "goldfish"},
        {"condition": {"class": "goldfish"}},
        {"condition": {"class": 1}},
        {"prompt": "gold fish"},
        {"prompt": "a photo of two goldfish, at night"},
    ]
    jobs = [server.client.post("/v1/generations", json={**asked, **words}).json() for words in said]
    chosen = [job["params"]["drawn_class"] for job in jobs]
    assert {(drawn["name"], drawn["index"]) for drawn in chosen} == {("goldfish", 1)}
    assert [drawn["is_exact"] for drawn in chosen] == [True, True, True, False, False]
    assert jobs[1]["params"]["prompt"] == jobs[2]["params"]["prompt"] == "goldfish"
    pictures = {_pixels(server, job["id"]) for job in jobs}
    assert len(pictures) == 1


def _pixels(server: LiveServer, job_id: str) -> bytes:
    assert server.events(job_id)[-1]["type"] == "completed"
    return Image.open(io.BytesIO(server.png(job_id))).tobytes()


@pytest.mark.parametrize(
    ("body", "code", "field", "words"),
    [
        ({"prompt": "quantum chromodynamics"}, "invalid_prompt", "prompt", "is no class of this model"),
        ({"condition": {"class": "gold fish"}}, "invalid_condition", "condition", "did you mean 'goldfish'"),
        ({"condition": {"class": 10}}, "invalid_condition", "condition", "a number from 0 to 9"),
        ({"condition": {"class": "hen"}, "prompt": "hen"}, "invalid_condition", "condition", "one of them is enough"),
        ({"condition": {}}, "missing_field", "condition", "required"),
        ({}, "missing_field", "prompt", "required"),
        ({"condition": {"class": "hen"}, "model": NAME}, "invalid_condition", "condition", "draws no classes"),
    ],
)
def test_what_names_no_class_is_refused(server: LiveServer, body: dict, code: str, field: str, words: str) -> None:
    answer = server.client.post("/v1/generations", json={"model": "arpg", **body})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == (code, field)
    assert words in error["message"]


def test_a_model_lists_its_classes(server: LiveServer) -> None:
    assert tuple(server.client.get("/v1/models/arpg/classes").json()["data"]) == CLASS_NAMES
    assert server.client.get(f"/v1/models/{NAME}/classes").json()["data"] == []
    assert server.client.get("/v1/models/nobody/classes").status_code == 404
    conditions = {entry["id"]: entry["condition"] for entry in server.client.get("/v1/models").json()["data"]}
    assert (conditions["arpg"], conditions[NAME]) == ("class", "text")


def test_openai_s_clients_are_told_the_nearest_class(server: LiveServer) -> None:
    answer = server.client.post("/v1/images/generations", json={"model": "arpg", "prompt": "gold fish", "steps": 4})
    assert answer.status_code == 200
    assert "the nearest is 'goldfish'" in answer.headers["OAR-Warning"]


def test_what_a_family_cannot_do_is_refused_before_it_is_queued(server: LiveServer) -> None:
    wrong = [
        ("lpd", {"order": "confidence"}, "confidence", "invalid_order"),
        ("randar", {"order": "confidence"}, "confidence", "invalid_order"),
        ("randar", {"group_sizes": "adaptive"}, "adaptive", "invalid_steps"),
        ("lpd", {"group_sizes": "adaptive"}, "adaptive", "invalid_steps"),
        ("llamagen", {"order": "halton"}, "'halton' is not one of raster", "invalid_order"),
        ("llamagen", {"steps": 8}, "this model writes one position a step, which is 16 steps", "invalid_steps"),
        ("llamagen", {"group_sizes": "cosine"}, "'cosine' is not one of constant", "invalid_steps"),
    ]
    for model, fields, sentence, code in wrong:
        answer = server.client.post("/v1/generations", json={"model": model, "prompt": "hen", **fields})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["field"]) == (422, code, next(iter(fields)))
        assert sentence in error["message"]


def test_a_permutation_that_is_no_raster_order_is_refused_by_a_raster_family(server: LiveServer) -> None:
    raster = list(range(NUM_TOKENS))
    plain = server.submit(model="llamagen", prompt="hen", seed=3)
    same = server.submit(model="llamagen", prompt="hen", seed=3, order=raster)
    assert server.events(plain["id"])[-1]["type"] == server.events(same["id"])[-1]["type"] == "completed"
    assert np.array_equal(pixels(server.png(plain["id"], 0)), pixels(server.png(same["id"], 0)))
    asked = {"model": "llamagen", "prompt": "hen", "order": raster[::-1]}
    answer = server.client.post("/v1/generations", json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_order")
    assert "row by row" in answer.json()["error"]["message"]


@pytest.mark.parametrize("address", ["/v1/edits", "/v1/images/edits", "/v1/images/variations"])
def test_edits_are_refused_by_families_that_cannot_keep_a_part(server: LiveServer, address: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(buffer, "PNG")
    fields = {"model": "llamagen"} | ({} if "variations" in address else {"prompt": "hen"})
    answer = server.client.post(address, data=fields, files={"image": ("image.png", buffer.getvalue())})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422 if address == "/v1/edits" else 400, "unsupported_by_model")
    assert error.get("field", error.get("param")) == "model"
    assert "can keep no part of one" in error["message"]


def test_randar_repaints_a_part_of_a_picture(server: LiveServer) -> None:
    job = server.submit(model="randar", prompt="hen", seed=3)
    server.events(job["id"])
    picture = server.png(job["id"], 0)
    mask = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 4, 8))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    files = {"image": ("image.png", picture), "mask": ("mask.png", buffer.getvalue())}
    fields = {"model": "randar", "prompt": "tench", "seed": "9", "steps": "3"}
    edit = server.client.post("/v1/edits", data=fields, files=files).json()
    assert server.events(edit["id"])[-1]["type"] == "completed"
    before, after = pixels(picture), pixels(server.png(edit["id"], 0))
    assert np.array_equal(before[:, 4:], after[:, 4:])
    assert not np.array_equal(before[:, :4], after[:, :4])
