"""Bad input gets a clear error with a stable code: never a stack trace, never a job."""

import json
from typing import Any

import pytest

from tests.server.live import LiveServer
from tests.server.tiny import NUM_TOKENS

URL = "/v1/generations"
JSON = {"content-type": "application/json"}
CASES: list[tuple[dict[str, Any], int, str, str]] = [
    ({"prompt": ""}, 422, "invalid_prompt", "prompt"),
    ({"prompt": " \n\t"}, 422, "invalid_prompt", "prompt"),
    ({"prompt": 5}, 422, "invalid_prompt", "prompt"),
    ({"prompt": None}, 422, "invalid_prompt", "prompt"),
    ({"prompt": "zq" * 200}, 422, "prompt_too_long", "prompt"),
    ({"prompt": "x" * 1001}, 422, "prompt_too_long", "prompt"),
    ({"model": "no-such-model"}, 404, "model_not_found", "model"),
    ({"model": 3}, 422, "invalid_model", "model"),
    ({"n": 0}, 422, "invalid_n", "n"),
    ({"n": -1}, 422, "invalid_n", "n"),
    ({"n": 17}, 422, "invalid_n", "n"),
    ({"n": True}, 422, "invalid_n", "n"),
    ({"n": "2"}, 422, "invalid_n", "n"),
    ({"seed": -1}, 422, "invalid_seed", "seed"),
    ({"seed": 2**63}, 422, "invalid_seed", "seed"),
    ({"seed": 1.5}, 422, "invalid_seed", "seed"),
    ({"order": "zigzag"}, 422, "invalid_order", "order"),
    ({"order": []}, 422, "invalid_order", "order"),
    ({"order": [0] * NUM_TOKENS}, 422, "invalid_order", "order"),
    ({"order": list(range(NUM_TOKENS - 1))}, 422, "invalid_order", "order"),
    ({"order": list(range(1, NUM_TOKENS + 1))}, 422, "invalid_order", "order"),
    ({"order": [*range(NUM_TOKENS - 1), "x"]}, 422, "invalid_order", "order"),
    ({"order": {"a": 1}}, 422, "invalid_order", "order"),
    ({"steps": 0}, 422, "invalid_steps", "steps"),
    ({"steps": NUM_TOKENS + 1}, 422, "invalid_steps", "steps"),
    ({"group_sizes": "square"}, 422, "invalid_steps", "group_sizes"),
    ({"group_sizes": []}, 422, "invalid_steps", "group_sizes"),
    ({"group_sizes": [NUM_TOKENS, 0]}, 422, "invalid_steps", "group_sizes"),
    ({"group_sizes": [NUM_TOKENS - 1]}, 422, "invalid_steps", "group_sizes"),
    ({"group_sizes": [NUM_TOKENS - 1, 1], "steps": 3}, 422, "invalid_steps", "group_sizes"),
    ({"group_sizes": [NUM_TOKENS, "x"]}, 422, "invalid_steps", "group_sizes"),
    ({"group_sizes": "fitted"}, 422, "invalid_steps", "group_sizes"),
    ({"guidance": -1}, 422, "invalid_sampling", "guidance"),
    ({"guidance": "high"}, 422, "invalid_sampling", "guidance"),
    ({"guidance_interval": [0.8, 0.2]}, 422, "invalid_sampling", "guidance_interval"),
    ({"guidance_interval": [0.2, 1.2]}, 422, "invalid_sampling", "guidance_interval"),
    ({"guidance_interval": [0.2]}, 422, "invalid_sampling", "guidance_interval"),
    ({"guidance_schedule": "square"}, 422, "invalid_sampling", "guidance_schedule"),
    ({"temperature": 101}, 422, "invalid_sampling", "temperature"),
    ({"top_k": -1}, 422, "invalid_sampling", "top_k"),
    ({"top_p": 0}, 422, "invalid_sampling", "top_p"),
    ({"top_p": 1.1}, 422, "invalid_sampling", "top_p"),
    ({"entropy_bound": -0.1}, 422, "invalid_steps", "entropy_bound"),
    ({"entropy_bound": 10_001}, 422, "invalid_steps", "entropy_bound"),
    ({"entropy_bound": "6"}, 422, "invalid_steps", "entropy_bound"),
    ({"candidates": 0}, 422, "invalid_steps", "candidates"),
    ({"candidates": 10_001}, 422, "invalid_steps", "candidates"),
    ({"candidates": 2.5}, 422, "invalid_steps", "candidates"),
    ({"previews": "yes"}, 422, "invalid_previews", "previews"),
    ({"clip_skip": 2}, 422, "unknown_field", "clip_skip"),
]


def check(answer: Any, status: int, code: str, field: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "field", "type"}
    assert (error["code"], error["field"]) == (code, field)
    assert error["message"]
    assert "Traceback" not in answer.text
    assert len(answer.text) < 1000


@pytest.mark.parametrize(("body", "status", "code", "field"), CASES, ids=lambda value: str(value)[:40])
def test_a_bad_field_is_named(live: LiveServer, body: dict[str, Any], status: int, code: str, field: str) -> None:
    check(live.post(**body), status, code, field)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"", 415, "unsupported_media_type"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", 400, "invalid_json"),
        (b"[]", 422, "invalid_request"),
        (b'"text"', 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
    ],
)
def test_a_body_that_is_no_request(live: LiveServer, content: bytes, status: int, code: str) -> None:
    headers = JSON if content else {}
    check(live.client.post(URL, content=content, headers=headers), status, code)


@pytest.mark.parametrize("field", ["guidance", "temperature", "top_p"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have(live: LiveServer, field: str, value: str) -> None:
    content = f'{{"prompt": "x", "{field}": {value}}}'
    check(live.client.post(URL, content=content, headers=JSON), 400, "invalid_json")


@pytest.mark.parametrize("field", ["guidance", "temperature", "top_p"])
def test_a_number_that_is_too_large(live: LiveServer, field: str) -> None:
    content = f'{{"prompt": "x", "{field}": 1e999}}'
    check(live.client.post(URL, content=content, headers=JSON), 422, "invalid_sampling", field)


@pytest.mark.parametrize(
    "body",
    [
        '{"prompt": "\\ud800"}',
        '{"prompt": "x", "order": "\\ud800"}',
        '{"prompt": "x", "model": "\\udfff"}',
        '{"prompt": "x", "\\ud800": 1}',
    ],
)
def test_half_a_character(live: LiveServer, body: str) -> None:
    check(live.client.post(URL, content=body, headers=JSON), 400, "invalid_json")


def test_a_field_that_is_there_twice(live: LiveServer) -> None:
    content = '{"prompt": "x", "prompt": "y"}'
    check(live.client.post(URL, content=content, headers=JSON), 400, "invalid_json")


def test_a_missing_prompt(live: LiveServer) -> None:
    check(live.client.post(URL, json={}), 422, "missing_field", "prompt")


def test_a_body_that_is_not_declared_as_json(live: LiveServer) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    check(live.client.post(URL, content=b'{"prompt": "x"}', headers=headers), 415, "unsupported_media_type")


def test_a_prompt_of_ten_megabytes(live: LiveServer) -> None:
    check(live.post(prompt="x" * 10_000_000), 413, "body_too_large")


def test_ten_megabytes_that_do_not_say_how_long_they_are(live: LiveServer) -> None:
    chunks = (b"x" * 100_000 for _ in range(100))
    check(live.client.post(URL, content=chunks, headers=JSON), 413, "body_too_large")


def test_a_chunked_body_below_the_limit_is_read(live: LiveServer) -> None:
    chunks = iter((b'{"prompt": ', b'"a red circle"}'))
    assert live.client.post(URL, content=chunks, headers=JSON).status_code == 202


@pytest.mark.parametrize("path", ["gen-unknown", "gen-unknown/images/0", "%2e%2e", "x" * 3000])
def test_an_unknown_job(live: LiveServer, path: str) -> None:
    check(live.client.get(f"{URL}/{path}"), 404, "job_not_found")


def test_cancel_of_an_unknown_job(live: LiveServer) -> None:
    check(live.client.delete(f"{URL}/gen-unknown"), 404, "job_not_found")


def test_an_address_that_is_not_there(live: LiveServer) -> None:
    check(live.client.get("/v2/nothing"), 404, "not_found")
    check(live.client.get(f"{URL}/gen-x/images/first"), 404, "not_found")


def test_a_method_that_is_not_taken(live: LiveServer) -> None:
    check(live.client.put(URL, json={}), 405, "method_not_allowed")


def test_an_unknown_model_by_name(live: LiveServer) -> None:
    check(live.post(model="nothing"), 404, "model_not_found", "model")


@pytest.mark.running
def test_a_picture_that_is_not_finished(live: LiveServer) -> None:
    with live.held():
        job = live.submit()
        check(live.client.get(f"{URL}/{job['id']}/images/0"), 409, "job_not_finished")
        live.client.delete(job["url"])


def test_an_empty_idempotency_key(live: LiveServer) -> None:
    headers = {"Idempotency-Key": ""}
    answer = live.client.post(URL, json={"prompt": "x"}, headers=headers)
    check(answer, 422, "invalid_idempotency_key", "Idempotency-Key")


def test_after_all_this_no_job_is_left_hanging(live: LiveServer) -> None:
    assert live.post(wait=60).status_code == 200
    live.wait_until_idle()
    assert "Traceback" not in live.log.read_text()
    assert json.loads(live.client.get("/ready").text)["status"] == "ready"
