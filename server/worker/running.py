"""A job while this worker has it: its canvases, and what is still to be written about it."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from oar_core.engine.events import FrameMade, Patch
from oar_core.engine.sequence import KnownTokens, SequenceRequest
from oar_core.engine.stepper import Request
from oar_core.errors import RequestError
from oar_core.models.base import Prefix, TokenLayout
from oar_core.models.model import FrameModel, Model, ModelBase
from oar_core.order.plan import PlanSpec
from oar_core.sampling.expectation import Expectation
from oar_core.sampling.frames import Frame, FrameRequest
from oar_core.sampling.sampler import SamplingParams
from oar_wire.events import Frame as FrameEvent
from oar_wire.events import Partial, Patches, PatchInfo, Revised
from oar_wire.job import GenerationParams
from oar_wire.options import take
from oar_wire.outputs import Output, link
from server.jobs import keys
from server.jobs.events import StoredEvent
from server.jobs.job import JobState
from server.jobs.worker_queue import Claim, Kept, NewEvent
from server.worker.edits import JobEdit


@dataclass
class Canvas:
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
        """What a restart keeps."""
        return len(self.positions)

    @property
    def is_finished(self) -> bool:
        return self.finished is not None

    @property
    def num_known(self) -> int:
        return len(self.given.positions) + len(self.positions)

    def add(self, positions: Iterable[int], token_ids: Iterable[int], surprises: Iterable[float] = ()) -> None:
        """What one step decoded."""
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
            num_resumed=len(self.positions),
            num_steps=self.num_steps,
            surprises=tuple(self.surprises),
            redrawn=tuple(self.redrawn.values()),
        )


@dataclass
class Clip:
    """One video: its finished frames, in order."""

    frames: list[Frame] = field(default_factory=list[Frame])
    is_finished: bool = False

    @property
    def num_kept(self) -> int:
        """What a restart keeps."""
        return len(self.frames)

    def go_on(self, number: int, frame: Frame | None) -> None:
        """Takes in a frame from before an interruption; not behind one whose values are gone."""
        if frame is not None and number == len(self.frames):
            self.frames.append(frame)


@dataclass(frozen=True)
class Snapshot:
    """A canvas at one moment: what a preview shows."""

    image: int
    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    edit: JobEdit | None
    partial_index: int | None
    expectation: Expectation | None = None  # of positions that it does not know, perhaps of some that it does


@dataclass(frozen=True)
class Ending:
    state: JobState
    body: str
    images: tuple[bytes, ...] = ()
    kept: tuple[Kept, ...] = ()  # outputs of other kinds


def kept_output(output: Output) -> tuple[Kept, ...]:
    """As it is stored beside the event log."""
    data, media_type = keys.output_fields(output.kind, output.index)
    return Kept(True, data, output.data), Kept(True, media_type, output.media_type)


def completed(body: str, outputs: Sequence[Output]) -> Ending:
    """Images are stored with the ending, other outputs before it."""
    images = tuple(output.data for output in outputs if output.kind == "image")
    kept = tuple(item for output in outputs if output.kind != "image" for item in kept_output(output))
    return Ending(JobState.COMPLETED, body, images, kept)


@dataclass
class RunningJob:
    claim: Claim
    canvases: list[Canvas]  # of a job that makes pictures
    clips: list[Clip]  # of one that makes videos
    seq: int  # number of the latest event that Redis has
    kept: list[Kept] = field(default_factory=list[Kept])  # to be stored before `pending` is written
    pending: list[NewEvent] = field(default_factory=list[NewEvent])  # not yet in Redis
    num_sending: int = 0  # of them, from the first: their numbers are given
    ending: Ending | None = None
    live: set[int] = field(default_factory=set[int])  # images whose sequences are in the engine
    claimed_at: float = field(default_factory=time.monotonic)
    has_patches: bool = False
    first_patch_at: float = field(default_factory=time.monotonic)
    edit: JobEdit | None = None
    partials: asyncio.Lock = field(default_factory=asyncio.Lock)  # they are sent in order, and before the ending

    @classmethod
    def begin(
        cls,
        claim: Claim,
        log: Sequence[StoredEvent],
        edit: JobEdit | None = None,
        values: Mapping[tuple[int, int], Frame] | None = None,
    ) -> "RunningJob":
        """From the checkpoint in the job's event log: its `patches`, what was `revised`, and the `partial` images that
        were sent; or its frames, whose `values` are stored beside it, by video and number."""
        num_videos = claim.params.n if claim.params.frames else 0
        canvases = [Canvas(edit.given if edit else KnownTokens()) for _ in range(claim.params.n - num_videos)]
        clips = [Clip() for _ in range(num_videos)]
        for stored in log:
            event = stored.parse()
            if isinstance(event, Patches):
                patches = event.patches
                canvases[event.image].add(
                    (patch.position for patch in patches), (patch.token for patch in patches), event.surprises
                )
            elif isinstance(event, Revised):
                canvases[event.image].redrawn |= {patch.position: patch.token for patch in event.patches}
            elif isinstance(event, Partial):
                canvases[event.image].num_partials = event.index + 1
            elif isinstance(event, FrameEvent) and values is not None:
                clips[event.image].go_on(event.frame, values.get((event.image, event.frame)))
        return cls(claim, canvases, clips, claim.seq, edit=edit)

    @property
    def works(self) -> Sequence[Canvas | Clip]:
        """What it makes, by image index."""
        return self.clips or self.canvases

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

    def requests(self, pipeline: Model | FrameModel, prompts: "Prompts | None" = None) -> Sequence[Request]:
        """One sequence for each image or video. Raises a RequestError for prompts that the model cannot read, unless
        they were read before."""
        params = self.claim.params
        prompts = prompts or read_prompts(params, pipeline)
        if isinstance(pipeline, FrameModel):
            return [
                FrameRequest(
                    id=self.sequence_id(image),
                    condition_ids=prompts.condition_ids,
                    seed=params.seed,
                    image_index=image,
                    guidance=params.guidance,
                    known=tuple(clip.frames),
                )
                for image, clip in enumerate(self.clips)
            ]
        return [
            sequence_request(params, prompts, self.sequence_id(image), image, canvas.known)
            for image, canvas in enumerate(self.canvases)
        ]

    def snapshot(
        self, image: int, partial_index: int | None = None, expectation: Expectation | None = None
    ) -> Snapshot:
        shown = self.canvases[image].shown
        return Snapshot(image, tuple(shown), tuple(shown.values()), self.edit, partial_index, expectation)

    def next_partial(self, image: int, step: int, steps: int) -> int | None:
        """The index of the partial image that is due after this step; the last step makes the picture itself."""
        index, wanted = self.canvases[image].num_partials, self.claim.params.partial_images
        is_due = index < wanted and step < steps and step * (wanted + 1) >= steps * (index + 1)
        return index if is_due else None

    @staticmethod
    def describe(image: int, step: int, steps: int, patches: Sequence[Patch], layout: TokenLayout) -> Patches:
        """The event of one step of one image."""
        return Patches(
            image=image,
            step=step,
            steps=steps,
            patches=_patch_infos(patches, layout),
            surprises=tuple(patch.surprise for patch in patches if patch.surprise is not None),
        )

    @staticmethod
    def describe_revision(image: int, step: int, steps: int, patches: Sequence[Patch], layout: TokenLayout) -> Revised:
        """The event of one step that draws tokens of a whole image again."""
        return Revised(image=image, step=step, steps=steps, patches=_patch_infos(patches, layout))

    def describe_frame(self, image: int, made: FrameMade, output: Output) -> FrameEvent:
        return FrameEvent(
            image=image,
            frame=made.number,
            frames=self.claim.params.frames,
            step=made.step,
            steps=made.steps,
            output=link(self.claim.job_id, output.kind, output.index, output.media_type),
        )


def _patch_infos(patches: Sequence[Patch], layout: TokenLayout) -> tuple[PatchInfo, ...]:
    infos: list[PatchInfo] = []
    for patch in patches:
        row, col = layout.place(patch.position)
        infos.append(
            PatchInfo(
                rank=patch.rank,
                position=patch.position,
                row=row,
                col=col,
                token=patch.token_id,
                confidence=round(patch.confidence, 4),
            )
        )
    return tuple(infos)


def write_values(frame: Frame) -> bytes:
    """Little-endian fp32, channel by channel and row by row."""
    return frame.numpy().astype("<f4").tobytes()


def read_values(data: bytes, shape: tuple[int, int, int]) -> Frame:
    return torch.tensor(np.frombuffer(data, dtype="<f4").astype(np.float32)).view(shape)


def parse_sequence_id(text: str) -> tuple[str, int, int]:
    """Job id, epoch and image index."""
    job_id, epoch, image = text.rsplit("/", 2)
    return job_id, int(epoch), int(image)


@dataclass(frozen=True)
class Prompts:
    """The prompts of a job as a model reads them."""

    condition_ids: Prefix
    negative_ids: Prefix | None = None


def read_prompts(params: GenerationParams, pipeline: ModelBase) -> Prompts:
    """Raises InvalidPrompt, PromptTooLong."""
    negative = (params.negative_prompt or "").strip()
    # Two classes may have one name: the number is what was chosen.
    prompt = params.prompt if params.drawn_class is None else str(params.drawn_class.index)
    return Prompts(pipeline.encode_prompt(prompt), _encode(pipeline, negative, "negative_prompt") if negative else None)


def _encode(pipeline: ModelBase, prompt: str, field: str) -> Prefix:
    try:
        return pipeline.encode_prompt(prompt)
    except RequestError as error:
        error.field = field
        raise


def sequence_request(
    params: GenerationParams, prompts: Prompts, sequence_id: str, image: int, known: KnownTokens
) -> SequenceRequest:
    return SequenceRequest(
        id=sequence_id,
        condition_ids=prompts.condition_ids,
        negative_ids=prompts.negative_ids,
        seed=params.seed,
        image_index=image,
        plan=PlanSpec.of(vars(params)),
        sampling=SamplingParams(**take(vars(params), [item.name for item in fields(SamplingParams)])),
        known=known,
    )
