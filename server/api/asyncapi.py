"""The AsyncAPI 3.0 document: a job's events, as a websocket and as server-sent events carry them.

The schemas are those of `oar_wire.events`; the examples were recorded from a run (`make documents`).
"""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal, get_args

from pydantic import Field
from pydantic.json_schema import models_json_schema

from oar_wire.base import Sent
from oar_wire.error import ErrorBody
from oar_wire.events import TERMINAL_TYPES, Event
from server.api.codes import as_json, close_codes

VERSION = "3.0.0"
EXAMPLES = "event_examples.json"
SOCKET, EVENTS = "stream", "events"
STREAM_ERROR, EVENTS_ERROR = "streamError", "eventsError"
SCHEMAS = "#/components/schemas/"

STREAM = """\
Replays the job's events whose `seq` is above `after`, oldest first, then goes on live, one JSON object a text frame.
`seq` grows; a number that is missing was a preview that a newer one replaced, and nothing else is ever missing. After
the terminal event (`completed`, `failed` or `canceled`) the server closes with 1000. What a client sends is ignored.

An error is a frame of its own and then a close code; both name the last `seq` that was sent. Who connects again with
`after=` that number misses nothing. Fields that a client does not know are to be ignored.
"""
SERVER_SENT = """\
The same events as `text/event-stream`: `id` is the `seq`, `event` the type, `data` the JSON object on one line. A
browser takes a broken stream up again by itself, with `Last-Event-ID`; others say `after`. Where all events are known
already the answer is 204. In silence a comment comes from time to time. An error after the answer has begun is an event
`error`.
"""
AFTER = {
    "type": "string",
    "pattern": "^[0-9]{1,15}$",
    "default": "0",
    "description": "The `seq` of the last event that is known; 0 replays all",
}


KEY = "Where the operator gave out keys (`OAR_API_KEYS`); any other server asks for none"
HEADERS = {
    "Authorization": {
        "type": "string",
        "description": "`Bearer KEY`, on a server that gave out keys; any other asks for none",
    },
    "Sec-WebSocket-Protocol": {
        "type": "string",
        "description": "The same for who cannot set headers: `oar.v1, oar.key.` + base64url of the key, unpadded; "
        "the server answers `oar.v1`",
    },
}


class StreamError(ErrorBody):
    """The last frame of a websocket that is closed with another code than 1000."""

    seq: int = Field(description="Of the last event that was sent: connect again with `after=` it")


class EventsError(ErrorBody):
    """The data of the event `error`, which ends a stream of server-sent events."""

    type: Literal["error"] = "error"


def document(
    version: str, host: str = "localhost:8000", root_path: str = "", *, is_secure: bool = False
) -> dict[str, Any]:
    """The AsyncAPI document of the server's `version`, as a client reaches it."""
    kinds = _kinds()
    examples = load_examples()
    names = [*kinds, STREAM_ERROR], [*kinds, EVENTS_ERROR]
    messages = {name: _message(name, kind, examples.get(name, [])) for name, kind in kinds.items()}
    messages |= {
        STREAM_ERROR: _message(STREAM_ERROR, StreamError, examples.get(STREAM_ERROR, [])),
        EVENTS_ERROR: _message(EVENTS_ERROR, EventsError, examples.get(EVENTS_ERROR, [])),
    }
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "OAR server: events of a job",
            "version": version,
            "description": "How a picture comes about, patch by patch. What makes a job is in openapi.json.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": _server(host, "wss" if is_secure else "ws", root_path),
            "http": _server(host, "https" if is_secure else "http", root_path),
        },
        "channels": {SOCKET: _stream(names[0]), EVENTS: _events(names[1])},
        "operations": {
            "sendStream": _operation(SOCKET, names[0], "Sends a job's events over a websocket", {}),
            "sendEvents": _operation(
                EVENTS,
                names[1],
                "Sends a job's events as server-sent events",
                {"http": {"method": "GET", "query": _object(after=AFTER), "bindingVersion": "0.3.0"}},
            ),
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": KEY}},
            "messages": messages,
            "schemas": _schemas([*kinds.values(), StreamError, EventsError]),
        },
        "x-error-codes": as_json(),
    }


def _server(host: str, protocol: str, root_path: str) -> dict[str, str]:
    return {"host": host, "protocol": protocol, **({"pathname": root_path} if root_path else {})}


def load_examples() -> dict[str, list[dict[str, Any]]]:
    """Recorded payloads by the name of their message."""
    return json.loads((resources.files("server.api") / EXAMPLES).read_text(encoding="utf-8"))


def _kinds() -> dict[str, type[Sent]]:
    return {kind.model_fields["type"].default: kind for kind in get_args(Event)}


def _stream(names: list[str]) -> dict[str, Any]:
    return {
        **_channel("/v1/generations/{job_id}/stream", "The websocket", STREAM, "websocket", names),
        "bindings": {
            "ws": {
                "method": "GET",
                "query": _object(after=AFTER),
                "headers": _object(**HEADERS),
                "bindingVersion": "0.1.0",
            }
        },
        "x-close-codes": close_codes(),
    }


def _events(names: list[str]) -> dict[str, Any]:
    return _channel("/v1/generations/{job_id}/events", "Server-sent events", SERVER_SENT, "http", names)


def _channel(address: str, title: str, description: str, server: str, names: list[str]) -> dict[str, Any]:
    return {
        "address": address,
        "title": title,
        "description": description,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "parameters": {"job_id": {"description": "The `id` of a job", "examples": ["gen-0f3a5c"]}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _operation(channel: str, names: list[str], summary: str, bindings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
        **({"bindings": dict(bindings)} if bindings else {}),
    }


def _message(name: str, kind: type[Sent], examples: list[dict[str, Any]]) -> dict[str, Any]:
    text = " ".join((kind.__doc__ or "").split())
    ends = " It is the last event of its job." if name in TERMINAL_TYPES else ""
    return {
        "name": name,
        "title": kind.__name__,
        "summary": (text or SUMMARIES[name]) + ends,
        "contentType": "application/json",
        "payload": {"$ref": SCHEMAS + kind.__name__},
        "examples": [{"name": f"{name}{place}", "payload": example} for place, example in enumerate(examples)],
    }


SUMMARIES = {
    "queued": "The job was accepted; always the first event.",
    "started": "A worker began the job.",
    "completed": "All that the job makes is finished and can be fetched.",
    "failed": "The job ended without pictures; `error` says why.",
    "canceled": "The job was canceled.",
}

# Of `patches` where no revision was asked for, of tokens of another layout, and of pictures of the whole resolution.
LEFT_OUT = {"surprises", "row", "col", "group", "place", "resolution"}


def _schemas(kinds: list[type[Sent]]) -> dict[str, Any]:
    """JSON schemas as they are sent: a field with a default is always there, but for LEFT_OUT."""
    _, schemas = models_json_schema([(kind, "serialization") for kind in kinds], ref_template=SCHEMAS + "{model}")
    found: dict[str, Any] = schemas["$defs"]
    for schema in found.values():
        schema["required"] = [name for name in schema["properties"] if name not in LEFT_OUT]
    return found


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}
