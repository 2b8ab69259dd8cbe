"""Which steps make a partial image, also for a job that another worker began."""

import pytest

from oar_wire.events import Partial, Patches, PatchInfo, Preview
from oar_wire.job import GenerationParams
from server.jobs.events import StoredEvent
from server.jobs.log import Checkpoint, Claim
from server.worker.running import RunningJob

PARAMS = GenerationParams(
    model="tiny", prompt="x", seed=7, n=2, order="raster", steps=8, group_sizes="cosine", guidance=2.0,
    temperature=1.0, top_k=0, top_p=1.0,
)  # fmt: skip


def claim(partial_images: int, epoch: int = 1) -> Claim:
    params = PARAMS.model_copy(update={"partial_images": partial_images})
    return Claim("gen-x", "tiny", epoch, attempt=epoch, seq=2, age=0.0, base=0, begins_again=False, params=params)


def draw(job: RunningJob, steps: range, of: int, image: int = 0) -> list[tuple[int, int]]:
    """(step, index) of the partial images of one image."""
    made: list[tuple[int, int]] = []
    for step in steps:
        index = job.next_partial(image, step, of)
        if index is not None:
            made.append((step, index))
            job.pictures[image].num_partials += 1
    return made


@pytest.mark.parametrize(
    ("partial_images", "steps", "expected"),
    [
        (0, 8, []),
        (1, 8, [4]),
        (2, 8, [3, 6]),
        (3, 8, [2, 4, 6]),
        (3, 64, [16, 32, 48]),
        (3, 4, [1, 2, 3]),
        (3, 3, [1, 2]),
        (2, 1, []),
    ],
)
def test_they_are_spread_evenly_and_the_last_step_makes_none(
    partial_images: int, steps: int, expected: list[int]
) -> None:
    job = RunningJob.begin(claim(partial_images))
    for image in range(2):
        made = draw(job, range(1, steps + 1), steps, image)
        assert [step for step, _ in made] == expected
        assert [index for _, index in made] == list(range(len(expected)))


def test_a_job_that_is_begun_again_makes_only_those_that_were_not_sent() -> None:
    """The worker died after step 5: the first was sent, the second was due at step 4 and got lost with it."""
    position = PatchInfo(rank=0, position=0, row=0, col=0, token=1, confidence=1)
    events = [
        *(Patches(image=0, step=step, steps=8, patches=(position,)) for step in range(1, 6)),
        Partial(image=0, known=2, total=8, width=1, height=1, data="", index=0),
        Preview(image=1, known=2, total=8, width=1, height=1, data=""),
    ]  # fmt: skip
    log = [StoredEvent("gen-x", seq, event.type, 0.0, event.body()) for seq, event in enumerate(events, 3)]
    job = RunningJob.begin(claim(3, epoch=2), Checkpoint(log))
    assert [picture.num_partials for picture in job.pictures] == [1, 0]
    assert draw(job, range(6, 9), 8) == [(6, 1), (7, 2)]
