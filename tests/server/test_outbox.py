"""What waits to be written while Redis is away."""

from server.jobs.log import Claim, NewEvent
from server.worker.running import RunningJob
from tests.server.jobs.protocol import PARAMS


def running() -> RunningJob:
    claim = Claim("gen-1", "tiny", epoch=1, attempt=1, seq=2, age=0, base=0, begins_again=False, params=PARAMS)
    return RunningJob.begin(claim)


def preview(image: int, number: int) -> NewEvent:
    return NewEvent("preview", f'{{"number":{number}}}', image)


PATCHES = NewEvent("patches", "{}")


def test_a_newer_preview_takes_the_place_of_one_that_waits() -> None:
    job = running()
    for number in range(100):
        for event in (PATCHES, preview(0, number), preview(1, number)):
            job.add(event)
    assert [event for event in job.pending if event.type == "preview"] == [preview(0, 99), preview(1, 99)]
    assert job.pending.count(PATCHES) == 100


def test_one_that_is_on_its_way_keeps_its_number() -> None:
    """It may be written already: were it left out of a repeated call, a later event would be taken for it."""
    job = running()
    job.add(preview(0, 0))
    job.num_sending = 1
    job.add(preview(0, 1))
    job.add(preview(0, 2))
    assert job.pending == [preview(0, 0), preview(0, 2)]
