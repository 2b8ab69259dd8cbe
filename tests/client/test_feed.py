"""What decides about streams and repeated calls, without any I/O."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from oar_client import (
    BadAnswer,
    BadRequest,
    Canvas,
    ConnectionFailed,
    NotFound,
    OarError,
    Overloaded,
    Patience,
    Refused,
    TimedOut,
    Unauthorized,
    UnknownEvent,
)
from oar_client.errors import error_object, refusal
from oar_client.feed import Feed, parse_event
from oar_client.retry import Attempts, parse_retry_after

GONE = ConnectionClosedError(None, None)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts(clock: Clock, chance: float = 1.0, **patience: float) -> Attempts:
    return Attempts(Patience(**patience), clock=clock, chance=lambda: chance)


def feed(clock: Clock, after: int = 0, timeout: float | None = None, **patience: float) -> Feed:
    return Feed(after, attempts(clock, **patience), silence=10, timeout=timeout, clock=clock)


def frame(seq: int, kind: str = "started", **fields: Any) -> str:
    return json.dumps({"type": kind, "seq": seq, "job_id": "gen-1", "at": 1.5, **fields})


def closed(code: int) -> ConnectionClosedError:
    return ConnectionClosedError(Close(code, ""), None)


# calls


def test_pauses_double_up_to_a_bound_and_have_jitter() -> None:
    clock = Clock()
    certain = attempts(clock, first_pause=1, longest_pause=5, seconds=1000)
    assert [certain.unreachable(OSError()) for _ in range(5)] == [1, 2, 4, 5, 5]
    lucky = attempts(clock, chance=0.0, first_pause=1, longest_pause=5, seconds=1000)
    assert [lucky.unreachable(OSError()) for _ in range(3)] == [0.5, 1, 2]
    certain.reset()
    assert certain.unreachable(OSError()) == 1


def test_patience_ends_before_the_pause_that_would_exceed_it() -> None:
    clock = Clock()
    tries = attempts(clock, first_pause=1, longest_pause=100, seconds=6)
    for pause in (1, 2):
        assert tries.unreachable(OSError()) == pause
        clock.now += pause
    with pytest.raises(ConnectionFailed, match=r"cannot be reached: lost"):
        tries.unreachable(OSError("lost"))
    with pytest.raises(ConnectionFailed):
        Attempts(Patience.none()).unreachable(OSError())


def test_a_server_that_was_never_reached_has_a_bound_of_its_own() -> None:
    tries = Attempts(Patience(first_contact=0.1), has_contact=False, clock=Clock())
    with pytest.raises(ConnectionFailed):
        tries.unreachable(OSError())
    tries = Attempts(Patience(first_contact=0.1), has_contact=False, clock=Clock())
    assert tries.answered(503, None, b"") is not None, "an answer is a contact"
    assert tries.unreachable(OSError()) > 0


def test_retry_after_is_heeded_up_to_a_bound() -> None:
    clock = Clock()
    tries = attempts(clock, chance=0.0, first_pause=0.1, seconds=1000, longest_retry_after=30)
    body = json.dumps({"error": {"code": "queue_full", "message": "full", "field": None, "type": "x"}}).encode()
    assert tries.answered(429, "7", body) == 7
    assert attempts(clock, chance=1.0, first_pause=0.1, seconds=1000).answered(503, "8", b"") == 10, "with jitter"
    with pytest.raises(Overloaded) as caught:
        tries.answered(429, "31", body)
    assert (caught.value.code, caught.value.retry_after, caught.value.status) == ("queue_full", 31, 429)
    assert tries.answered(429, None, body) < 1


def test_retry_after_may_be_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_retry_after("Thu, 01 Jan 2026 00:00:09 GMT", now) == 9
    assert parse_retry_after("Thu, 01 Jan 2025 00:00:09 GMT", now) == 0
    assert parse_retry_after("soon") is parse_retry_after(None) is None
    assert parse_retry_after("12") == 12


@pytest.mark.parametrize(
    ("status", "kind", "is_final"),
    [(400, BadRequest, True), (401, Unauthorized, True), (403, Unauthorized, True), (404, NotFound, True),
     (410, NotFound, True), (413, BadRequest, True), (422, BadRequest, True), (429, Overloaded, False),
     (500, Refused, True), (502, Overloaded, False), (503, Overloaded, False), (504, Overloaded, False),
     (302, BadAnswer, True)],
)  # fmt: skip
def test_statuses_are_classes(status: int, kind: type[OarError], is_final: bool) -> None:
    if is_final:
        with pytest.raises(kind):
            attempts(Clock()).answered(status, None, b"<html>")
    else:
        assert attempts(Clock()).answered(status, None, b"<html>") > 0
        assert isinstance(refusal(status, {}), kind)


def test_errors_of_both_shapes_are_read() -> None:
    assert error_object(b'{"error": {"code": "x"}}') == {"code": "x"}
    for nothing in (b"", b"[]", b'{"error": 5}', b"\xff", b'"error"'):
        assert error_object(nothing) == {}
    assert refusal(422, {"param": "order", "code": "c", "message": "m"}).field == "order"
    assert refusal(502, {}).message == "the server answered 502"


# streams


def test_what_comes_twice_is_told_once() -> None:
    stream = feed(Clock(), after=2)
    assert stream.accept(frame(2)) is None
    assert stream.accept(frame(4)) is not None
    assert stream.accept(frame(4)) is None
    assert stream.seq == 4
    end = stream.accept(frame(3, "canceled"))
    assert end is not None, "an end is never old news"
    assert stream.has_ended


@given(st.data())
def test_however_it_breaks_each_event_is_told_once(data: st.DataObject) -> None:
    """Against a server that replays from where it is asked to, or from somewhat before."""
    log = [frame(seq) for seq in range(1, data.draw(st.integers(1, 30)))]
    log.append(frame(len(log) + 1, "canceled"))
    stream, clock = feed(Clock(), seconds=10**9), Clock()
    told: list[int] = []
    while not stream.has_ended:
        stream.opened()
        start = max(0, stream.seq - data.draw(st.integers(0, 3)))
        for text in log[start : start + data.draw(st.integers(1, 10))]:
            if stream.has_ended:
                break
            event = stream.accept(text)
            if event is not None:
                told.append(event.seq)
        if not stream.has_ended:
            clock.now += stream.broke(data.draw(st.sampled_from([GONE, OSError(), closed(1006), closed(1013)])))
    assert told == list(range(1, len(log) + 1))


@pytest.mark.parametrize("text", ["{", "[]", "5", '{"seq": 1}', '{"type": "started", "seq": "x"}', '{"type": 5}'])
def test_what_is_no_event_is_told(text: str) -> None:
    with pytest.raises(BadAnswer):
        feed(Clock()).accept(text)


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers()))))
def test_any_object_is_an_event_or_a_bad_answer(fields: dict[str, Any]) -> None:
    try:
        event = parse_event(fields)
    except BadAnswer:
        return
    Canvas().feed(event)
    named = parse_event({"type": "a new one", **{key: fields[key] for key in fields if key not in RESERVED}})
    assert isinstance(named, UnknownEvent)


RESERVED = {"type", "seq", "job_id", "at"}


@pytest.mark.parametrize(
    ("code", "kind", "status"), [(4400, BadRequest, 400), (4401, Unauthorized, 401), (4404, NotFound, 404),
                                 (4410, NotFound, 410)],
)  # fmt: skip
def test_refusals_by_close_code(code: int, kind: type[OarError], status: int) -> None:
    stream = feed(Clock())
    stream.opened()
    assert stream.accept(json.dumps({"error": {"code": "why", "message": "because"}, "seq": 0})) is None
    with pytest.raises(kind) as caught:
        stream.broke(closed(code))
    assert (caught.value.code, caught.value.message, caught.value.status) == ("why", "because", status)


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 1013, 4429])
def test_what_may_go_better_is_tried_again(code: int) -> None:
    stream = feed(Clock(), seconds=0.3, first_pause=0.2)
    stream.opened()
    stream.accept(json.dumps({"error": {"code": "slow_client", "message": "it does not read"}, "seq": 0}))
    assert stream.broke(closed(code)) == 0.2
    with pytest.raises((Overloaded, ConnectionFailed)):
        stream.broke(closed(code))


def test_an_orderly_close_without_an_end_is_doubted() -> None:
    stream = feed(Clock())
    stream.opened()
    assert stream.broke(ConnectionClosedOK(Close(1000, ""), Close(1000, ""), rcvd_then_sent=True)) == 0
    assert stream.is_in_doubt


def test_a_handshake_that_is_refused() -> None:
    def refused(status: int, **headers: str) -> InvalidStatus:
        return InvalidStatus(Response(status, "", Headers(headers), b'{"error": {"code": "why"}}'))

    assert feed(Clock(), seconds=1000, first_pause=0.1).broke(refused(503, **{"Retry-After": "4"})) >= 4
    with pytest.raises(Unauthorized) as caught:
        feed(Clock()).broke(refused(401))
    assert caught.value.code == "why"


def test_silence_opens_again_at_once_and_is_no_trouble() -> None:
    clock = Clock()
    stream = feed(clock, seconds=15)
    for _ in range(20):
        stream.opened()
        assert stream.patience == 10
        clock.now += stream.patience
        assert stream.broke(TimeoutError()) == 0
    stream = feed(clock, seconds=15)
    stream.broke(TimeoutError())  # it was not even opened
    clock.now += 20
    with pytest.raises(ConnectionFailed):
        stream.broke(TimeoutError())


def test_a_bound_on_the_whole() -> None:
    clock = Clock()
    stream = feed(clock, timeout=12)
    stream.opened()
    stream.check_time()
    clock.now += 10
    assert stream.patience == 2
    assert stream.broke(GONE) <= 2
    clock.now += 3
    assert stream.patience == 0
    with pytest.raises(TimedOut):
        stream.check_time()
    with pytest.raises(TimedOut):
        stream.broke(GONE)


# the canvas


def patches(image: int, step: int, positions: list[int], first_rank: int) -> Any:
    told = [
        {"rank": first_rank + index, "position": position, "row": 0, "col": 0, "token": 1, "confidence": 0.5}
        for index, position in enumerate(positions)
    ]
    return parse_event({"type": "patches", "seq": 1, "image": image, "step": step, "steps": 4, "patches": told})


def preview(image: int, known: int, kind: str = "preview", **fields: Any) -> Any:
    facts = {"image": image, "known": known, "total": 8, "width": 4, "height": 4, "data": "eHg="}
    return parse_event({"type": kind, "seq": 2, **facts, **fields})


def test_the_canvas_goes_on_from_what_a_restart_kept() -> None:
    canvas = Canvas(2)
    canvas.feed(patches(0, 1, [3, 1], 0))
    canvas.feed(patches(0, 2, [0, 2], 2))
    canvas.feed(patches(1, 1, [7], 0))
    canvas.feed(preview(0, 4))
    canvas.feed(parse_event({"type": "restarted", "seq": 3, "attempt": 2, "known": [4, 1]}))
    assert (canvas.images[0].num_written, canvas.attempt) == (4, 2)
    assert canvas.images[0].preview is not None, "nothing of it was lost"
    canvas.feed(parse_event({"type": "restarted", "seq": 3, "attempt": 3, "known": [2, 1]}))
    assert list(canvas.images[0].patches) == [3, 1]
    assert canvas.images[0].preview is None
    canvas.feed(parse_event({"type": "restarted", "seq": 4, "attempt": 4, "reason": "model_changed"}))
    assert (canvas.rank, canvas.step) == (0, 0)


def test_the_canvas_keeps_the_preview_that_shows_most() -> None:
    canvas = Canvas()
    canvas.feed(preview(0, 4))
    canvas.feed(preview(0, 3, "partial", index=0))
    assert canvas.images[0].preview.known == 4
    assert canvas.images[0].num_known == 4
    assert canvas.images[0].preview_bytes == b"xx"
    canvas.feed(preview(0, 5))
    assert canvas.images[0].preview.known == 5


def test_the_canvas_counts_pictures_that_have_not_begun() -> None:
    canvas = Canvas(1)
    assert (canvas.steps, canvas.failure, canvas.num_drawn) == (0, None, 0)
    canvas.feed(patches(2, 4, [1], 0))
    assert (len(canvas.images), canvas.step, canvas.steps, canvas.num_drawn) == (3, 4, 12, 1)
    canvas.feed(parse_event({"type": "failed", "seq": 9, "error": {"code": "c", "message": "m"}}))
    assert canvas.failure is not None
    assert not canvas.is_complete


def test_jitter_differs_from_client_to_client() -> None:
    pauses = {Attempts(Patience()).unreachable(OSError()) for _ in range(20)}
    assert len(pauses) > 10
