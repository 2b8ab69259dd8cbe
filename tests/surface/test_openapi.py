"""The OpenAPI document against the server that it describes: schemathesis sends what the document allows, and more."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.api.app import create_app
from server.settings import Settings
from tests.server.live import LiveServer
from tests.server.tiny import write_tiny_weights
from tests.waiting import HANG_SECONDS

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    weights = tmp_path_factory.mktemp("weights")
    write_tiny_weights(weights)
    with LiveServer(tmp_path_factory.mktemp("openapi"), weights, OAR_QUEUE_DEPTH="1000000") as server:
        yield server


def send(live: LiveServer, method: str, path: str, examples: int) -> None:
    """`examples` requests that fit the document and as many that do not, the same at each run."""
    schema = schemathesis.openapi.from_dict(live.client.get("/openapi.json").json())
    schema.config.update(base_url=live.url)
    job = live.post(wait=60).json()
    operation = schema[path][method.upper()]
    strategies = [
        operation.as_strategy(generation_mode=mode)
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    ]

    @settings(max_examples=2 * examples, derandomize=True, database=None, deadline=None, suppress_health_check=QUIET)
    @given(case=st.one_of(strategies), is_known=st.booleans())
    def check(case: Any, is_known: bool) -> None:
        if is_known and "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = job["id"]
        answer = case.call(timeout=HANG_SECONDS)
        # A deadline that the request itself names may pass, and the document says so.
        is_late = answer.status_code == 500 and answer.json()["error"]["code"] == "deadline_exceeded"
        checks = [check for check in CHECKS if check is not not_a_server_error or not is_late]
        case.validate_response(answer, checks=checks)

    check()
    assert "Traceback" not in live.log.read_text()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_as_the_document_says(live: LiveServer, method: str, path: str) -> None:
    send(live, method, path, examples=8)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_and_so_are_many_more(live: LiveServer, method: str, path: str) -> None:
    send(live, method, path, examples=300)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_route_says_what_may_go_wrong(method: str, path: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    assert operation.get("description") or operation["summary"]
    for parameter in operation.get("parameters", ()):
        assert parameter.get("description") or parameter["schema"], parameter["name"]
    for status, reply in operation["responses"].items():
        content = reply.get("content", {}).get("application/json", {})
        if int(status) >= 400:
            assert content["examples"], status
            for example in content["examples"].values():
                openai = path.startswith(("/v1/images/", "/v1/models"))
                wanted = {"message", "type", "param", "code"} if openai else {"code", "message", "field", "type"}
                assert set(example["value"]["error"]) == wanted


def test_fastapis_own_error_shape_is_not_documented() -> None:
    assert "HTTPValidationError" not in str(DOCUMENT)
