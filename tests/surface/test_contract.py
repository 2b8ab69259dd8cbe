"""The public surface, pinned: a change here is a change for clients."""

from typing import get_args

from oar_wire.errors import OF_A_FIELD
from oar_wire.events import TERMINAL_TYPES, Event
from oar_wire.job import GenerationStatus, State
from oar_wire.request import GenerationRequest
from server.api.app import create_app
from server.api.codes import error_codes
from server.jobs.job import JobState
from server.settings import Settings, environment_name


def test_routes() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == {
        ("POST", "/v1/generations"),
        ("GET", "/v1/generations"),
        ("GET", "/v1/generations/{job_id}"),
        ("DELETE", "/v1/generations/{job_id}"),
        ("GET", "/v1/generations/{job_id}/events"),
        ("GET", "/v1/generations/{job_id}/images/{index}"),
        ("GET", "/v1/generations/{job_id}/outputs/{kind}/{index}"),
        ("GET", "/v1/generations/{job_id}/images/{index}/painting"),
        ("POST", "/v1/edits"),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/images/edits"),
        ("POST", "/v1/images/variations"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{name}"),
        ("GET", "/v1/models/{name}/classes"),
        ("GET", "/v1/callbacks/secret"),
        ("GET", "/v1/usage"),
        ("GET", "/live"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
    }


def test_request_and_status_fields() -> None:
    assert set(GenerationRequest.model_fields) == {
        "model", "prompt", "seed", "n", "order", "steps", "group_sizes", "guidance", "temperature", "top_k", "top_p",
        "previews", "priority", "deadline", "entropy_bound", "candidates", "guidance_interval", "guidance_schedule",
        "negative_prompt", "condition", "repulsion", "revise", "callback_url", "kept_previews",
    }  # fmt: skip
    assert set(GenerationStatus.model_fields) == {
        "id", "status", "seed", "params", "seq", "attempts", "cancel_requested", "position", "eta", "timings", "images",
        "error", "url", "stream_url", "events_url", "retry_of", "workers", "notice", "warnings",
        "outputs",
    }  # fmt: skip


def test_events_and_states() -> None:
    types = {event.model_fields["type"].default for event in get_args(Event)}
    assert types == {
        "queued",
        "started",
        "patches",
        "revised",
        "preview",
        "partial",
        "frame",
        "restarted",
        "completed",
        "failed",
        "canceled",
    }
    assert set(get_args(State)) == set(JobState)
    assert {state for state in JobState if state.is_terminal} == TERMINAL_TYPES


def test_error_codes_and_statuses() -> None:
    assert {error.code: error.status for error in error_codes() if error.meaning != OF_A_FIELD} == {
        "internal_error": 500,
        "invalid_json": 400,
        "not_found": 404,
        "model_not_found": 404,
        "job_not_found": 404,
        "image_not_found": 404,
        "output_not_found": 404,
        "method_not_allowed": 405,
        "job_not_finished": 409,
        "job_has_no_image": 409,
        "job_expired": 410,
        "request_timeout": 408,
        "body_too_large": 413,
        "websocket_only": 426,
        "head_too_large": 431,
        "invalid_http": 400,
        "unsupported_media_type": 415,
        "idempotency_key_reused": 422,
        "invalid_api_key": 401,
        "invalid_link": 403,
        "link_expired": 403,
        "origin_not_allowed": 403,
        "priority_not_allowed": 403,
        "host_not_allowed": 421,
        "queue_full": 429,
        "queue_share_full": 429,
        "storage_share_full": 429,
        "rate_limited": 429,
        "picture_share_full": 429,
        "picture_queue_full": 503,
        "too_many_sockets": 503,
        "too_many_uploads": 503,
        "model_not_ready": 503,
        "job_lost": 503,
        "redis_unavailable": 503,
        "writes_refused": 503,
        "results_unavailable": 503,
        "slow_client": 503,
        "deadline_exceeded": 500,
        "attempts_exhausted": 500,
        "data_lost": 500,
        "wait_too_long": 504,
        "invalid_request": 422,
        "missing_field": 422,
        "unknown_field": 422,
        "unsupported_by_model": 422,
        "invalid_form": 422,
        "invalid_after": 422,
        "invalid_limit": 422,
        "invalid_days": 422,
        "invalid_purge": 422,
        "invalid_format": 422,
        "invalid_compression": 422,
        "invalid_idempotency_key": 422,
        "prompt_too_long": 422,
    }


def test_settings() -> None:
    names = {environment_name(name) for name in Settings.model_fields}
    assert {"OAR_HOST", "OAR_PORT", "OAR_DATA_DIR", "OAR_MODELS", "OAR_WEIGHTS_DIR", "REDIS_URL"} <= names
    assert all(name.startswith("OAR_") for name in names - {"REDIS_URL"})
