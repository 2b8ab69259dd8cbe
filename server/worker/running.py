"""A job while this worker has it: its pictures or videos, and what is still to be written about it."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from oar_core.engine.sequence import KnownTokens
from oar_core.engine.stepper import Request
from oar_core.models.model import FrameModel, Model
from oar_core.sampling.expectation import Expectation
from oar_core.sampling.frames import Frame
from oar_wire.events import Frame as FrameEvent
from oar_wire.events import Partial, Patches, Revised
from server.jobs.log import Checkpoint, Claim, Ending, Kept, NewEvent
from server.worker.edits import JobEdit
from server.worker.requests import Prompts, frame_request, read_prompts, sequence_request


@dataclass
class RunningPicture:
    """One image: positions and token ids in decode order, beside those that an edit gave."""

    given: KnownTokens = field(default_factory=KnownTokens)
    positions: list[int] = field(default_factory=list[int])
    token_ids: list[int] = field(default_factory=list[int])
    surprises: list[float] = field(default_factory=list[float])  # of these tokens, where the image is to be revised
    redrawn: dict[int, int] = field(default_factory=dict[int, int])  # token ids of the revision so far, by position
    num_steps: int = 0  # that made them
    finished: tuple[int, ...] | None = None  # token ids by position, once all are there
    num_previewed: int = 0
    previewed_at: float = field(default_factory=time.monotonic)
    num_partials: int = 0  # partial images that were made

    @property
    def num_kept(self) -> int:
        """Number of positions that a restart keeps."""
        return len(self.positions)

    @property
    def is_finished(self) -> bool:
        return self.finished is not None

    @property
    def num_known(self) -> int:
        return len(self.given.positions) + len(self.positions)

    def add(self, positions: Iterable[int], token_ids: Iterable[int], surprises: Iterable[float] = ()) -> None:
        """Takes in what one step decoded."""
        self.positions.extend(positions)
        self.token_ids.extend(token_ids)
        self.surprises.extend(surprises)
        self.num_steps += 1

    @property
    def shown(self) -> dict[int, int]:
        """The tokens to show, by position: those that were drawn again in the place of what they were."""
        given = zip(self.given.positions, self.given.token_ids)
        return {**dict(given), **dict(zip(self.positions, self.token_ids)), **self.redrawn}

    @property
    def known(self) -> KnownTokens:
        return KnownTokens(
            (*self.given.positions, *self.positions),
            (*self.given.token_ids, *self.token_ids),
            num_resumed=self.given.num_resumed + len(self.positions),
            num_steps=self.given.num_steps + self.num_steps,
            surprises=tuple(self.surprises),
            redrawn=tuple(self.redrawn.values()),
        )


@dataclass
class RunningVideo:
    """One video: its finished frames, in order."""

    frames: list[Frame] = field(default_factory=list[Frame])
    is_finished: bool = False

    @property
    def num_kept(self) -> int:
        """Number of frames that a restart keeps."""
        return len(self.frames)

    def go_on(self, number: int, frame: Frame | None) -> None:
        """Takes in a frame from before an interruption; not behind one whose values are gone."""
        if frame is not None and number == len(self.frames):
            self.frames.append(frame)


@dataclass(frozen=True)
class Snapshot:
    """A picture at one moment: what a preview shows."""

    image: int
    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    edit: JobEdit | None
    partial_index: int | None
    expectation: Expectation | None = None  # of positions that it does not know, perhaps of some that it does


@dataclass
class RunningJob:
    claim: Claim
    pictures: list[RunningPicture]  # of a job that makes pictures
    videos: list[RunningVideo]  # of one that makes videos
    seq: int  # number of the latest event that the log has
    kept: list[Kept] = field(default_factory=list[Kept])  # to be stored before `pending` is written
    pending: list[NewEvent] = field(default_factory=list[NewEvent])  # not yet in the log
    num_sending: int = 0  # of them, from the first: their numbers are given
    ending: Ending | None = None
    live: set[int] = field(default_factory=set[int])  # images whose sequences are in the engine
    claimed_at: float = field(default_factory=time.monotonic)
    has_patches: bool = False
    first_patch_at: float = field(default_factory=time.monotonic)
    edit: JobEdit | None = None
    prompts: Prompts | None = None  # where they were read already
    partials: asyncio.Lock = field(default_factory=asyncio.Lock)  # they are sent in order, and before the ending

    @classmethod
    def begin(
        cls,
        claim: Claim,
        checkpoint: Checkpoint = Checkpoint(),  # noqa: B008 - it is immutable
        *,
        edit: JobEdit | None = None,
        prompts: Prompts | None = None,
        frame_shape: tuple[int, int, int] | None = None,
    ) -> "RunningJob":
        """Goes on from the checkpoint in the job's event log: its `patches`, what was `revised`, and the `partial`
        images that were sent; or its frames, whose values have `frame_shape`."""
        num_videos = claim.params.n if claim.params.frames else 0
        pictures = [RunningPicture(edit.given if edit else KnownTokens()) for _ in range(claim.params.n - num_videos)]
        videos = [RunningVideo() for _ in range(num_videos)]
        for stored in checkpoint.events:
            event = stored.parse()
            if isinstance(event, Patches):
                patches = event.patches
                pictures[event.image].add(
                    (patch.position for patch in patches), (patch.token for patch in patches), event.surprises
                )
            elif isinstance(event, Revised):
                pictures[event.image].redrawn |= {patch.position: patch.token for patch in event.patches}
            elif isinstance(event, Partial):
                pictures[event.image].num_partials = event.index + 1
            elif isinstance(event, FrameEvent) and frame_shape is not None:
                data = checkpoint.values.get((event.image, event.frame))
                videos[event.image].go_on(event.frame, None if data is None else read_values(data, frame_shape))
        return cls(claim, pictures, videos, claim.seq, edit=edit, prompts=prompts)

    @property
    def works(self) -> Sequence[RunningPicture | RunningVideo]:
        """Pictures or videos, by image index."""
        return self.videos or self.pictures

    def add(self, event: NewEvent) -> None:
        """A preview takes the place of one of the same image that is not on its way yet: Redis may be away for long."""
        if event.type == "preview":
            self.pending[self.num_sending :] = [
                other
                for other in self.pending[self.num_sending :]
                if other.type != "preview" or other.image != event.image
            ]
        self.pending.append(event)

    @property
    def age(self) -> float:
        """Seconds since the job was accepted."""
        return self.claim.age + time.monotonic() - self.claimed_at

    @property
    def is_drawn(self) -> bool:
        return all(work.is_finished for work in self.works)

    def sequence_id(self, image: int) -> str:
        """Unique for each claim: reports about a sequence of a lost claim are not ours."""
        return f"{self.claim.job_id}/{self.claim.epoch}/{image}"

    def requests(self, pipeline: Model | FrameModel) -> Sequence[Request]:
        """One sequence for each image or video. Raises a RequestError for prompts that the model cannot read."""
        params, prompts = self.claim.params, self.prompts or read_prompts(self.claim.params, pipeline)
        if isinstance(pipeline, FrameModel):
            return [
                frame_request(params, prompts, self.sequence_id(index), index, tuple(video.frames))
                for index, video in enumerate(self.videos)
            ]
        return [
            sequence_request(params, prompts, self.sequence_id(image), image, picture.known)
            for image, picture in enumerate(self.pictures)
        ]

    def snapshot(
        self, image: int, partial_index: int | None = None, expectation: Expectation | None = None
    ) -> Snapshot:
        shown = self.pictures[image].shown
        return Snapshot(image, tuple(shown), tuple(shown.values()), self.edit, partial_index, expectation)

    def next_partial(self, image: int, step: int, steps: int) -> int | None:
        """The index of the partial image that is due after this step; the last step makes the picture itself."""
        index, count = self.pictures[image].num_partials, self.claim.params.partial_images
        is_due = index < count and step < steps and step * (count + 1) >= steps * (index + 1)
        return index if is_due else None


def write_values(frame: Frame) -> bytes:
    """Little-endian fp32, channel by channel and row by row."""
    return frame.numpy().astype("<f4").tobytes()


def read_values(data: bytes, shape: tuple[int, int, int]) -> Frame:
    return torch.tensor(np.frombuffer(data, dtype="<f4").astype(np.float32)).view(shape)
