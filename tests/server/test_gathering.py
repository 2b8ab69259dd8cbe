import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from server.worker.gathering import Gathering
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


class Squares:
    """Squares numbers as soon as it may, and keeps what it was asked for at a time."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        assert self.may_go.wait(HANG_SECONDS)
        if 13 in numbers:
            raise ValueError("13 has no square")
        return [number * number for number in numbers]


async def test_what_is_asked_meanwhile_is_the_next_batch(threads: ThreadPoolExecutor) -> None:
    squares = Squares()
    gathering = Gathering(squares, threads, most=3)
    asked = [asyncio.create_task(gathering.ask(0))]
    await _until(squares, 1)
    asked += [asyncio.create_task(gathering.ask(number)) for number in range(1, 6)]
    await asyncio.sleep(0)
    squares.may_go.set()
    assert await asyncio.gather(*asked) == [0, 1, 4, 9, 16, 25]
    assert squares.batches == [[0], [1, 2, 3], [4, 5]]
    assert await gathering.ask(7) == 49  # it had come to rest


async def test_an_error_is_that_of_its_batch_alone(threads: ThreadPoolExecutor) -> None:
    squares = Squares()
    gathering = Gathering(squares, threads, most=2)
    asked = [asyncio.create_task(gathering.ask(number)) for number in (12, 13, 14)]
    squares.may_go.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError, ValueError, int]
    assert answers[2] == 196


async def test_who_gives_up_does_not_disturb_the_others(threads: ThreadPoolExecutor) -> None:
    squares = Squares()
    gathering = Gathering(squares, threads, most=4)
    asked = [asyncio.create_task(gathering.ask(number)) for number in (3, 4)]
    await _until(squares, 1)
    asked[0].cancel()
    await asyncio.sleep(0)
    squares.may_go.set()
    assert await asked[1] == 16


async def test_threads_that_close_cancel_who_waits() -> None:
    threads, squares, may_go = ThreadPoolExecutor(1), Squares(), Event()
    threads.submit(may_go.wait, HANG_SECONDS)  # the thread is taken: the batch waits for it
    gathering = Gathering(squares, threads, most=1)
    asked = asyncio.create_task(gathering.ask(5))
    await asyncio.sleep(0.05)
    threads.shutdown(wait=False, cancel_futures=True)
    may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(HANG_SECONDS):
            await gathering.ask(6)
    assert not squares.batches


async def _until(squares: Squares, batches: int) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while len(squares.batches) < batches:
            await asyncio.sleep(0.005)
