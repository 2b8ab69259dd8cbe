"""A job while this worker has it: its canvases, and what is still to be written about it."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

from oar_core.engine.events import Patch
from oar_core.engine.sequence import KnownTokens, SequenceRequest
from oar_core.errors import RequestError
from oar_core.models.model import Model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.sampler import SamplingParams
from oar_wire.events import Partial, Patches, PatchInfo, Revised
from oar_wire.job import GenerationParams
from oar_wire.options import take
from server.jobs.events import StoredEvent
from server.jobs.job import JobState
from server.jobs.worker_queue import Claim, NewEvent
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
    finished: tuple[int, ...] | None = None  # token ids by position
    num_previewed: int = 0
    previewed_at: float = field(default_factory=time.monotonic)
    num_partials: int = 0  # partial images that were made

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


@dataclass(frozen=True)
class Snapshot:
    """A canvas at one moment: what a preview shows."""

    image: int
    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    edit: JobEdit | None
    partial_index: int | None


@dataclass(frozen=True)
class Ending:
    state: JobState
    body: str
    images: tuple[bytes, ...] = ()


@dataclass
class RunningJob:
    claim: Claim
    canvases: list[Canvas]
    seq: int  # number of the latest event that Redis has
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
    def begin(cls, claim: Claim, log: Sequence[StoredEvent], edit: JobEdit | None = None) -> "RunningJob":
        """From the checkpoint in the job's event log: its `patches`, what was `revised`, and the `partial` images that
        were sent."""
        canvases = [Canvas(edit.given if edit else KnownTokens()) for _ in range(claim.params.n)]
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
        return cls(claim, canvases, claim.seq, edit=edit)

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
        return all(canvas.finished is not None for canvas in self.canvases)

    def sequence_id(self, image: int) -> str:
        """Unique for each claim: reports about a sequence of a lost claim are not ours."""
        return f"{self.claim.job_id}/{self.claim.epoch}/{image}"

    def requests(self, pipeline: Model) -> list[SequenceRequest]:
        """One sequence for each image. Raises a RequestError for prompts that the model cannot read."""
        prompts = read_prompts(self.claim.params, pipeline)
        return [
            sequence_request(self.claim.params, prompts, self.sequence_id(image), image, canvas.known)
            for image, canvas in enumerate(self.canvases)
        ]

    def snapshot(self, image: int, partial_index: int | None = None) -> Snapshot:
        shown = self.canvases[image].shown
        return Snapshot(image, tuple(shown), tuple(shown.values()), self.edit, partial_index)

    def next_partial(self, image: int, step: int, steps: int) -> int | None:
        """The index of the partial image that is due after this step; the last step makes the picture itself."""
        index, wanted = self.canvases[image].num_partials, self.claim.params.partial_images
        is_due = index < wanted and step < steps and step * (wanted + 1) >= steps * (index + 1)
        return index if is_due else None

    @staticmethod
    def describe(image: int, step: int, steps: int, patches: Sequence[Patch], width: int) -> Patches:
        """The event of one step of one image; `width` is the grid's."""
        return Patches(
            image=image,
            step=step,
            steps=steps,
            patches=_patch_infos(patches, width),
            surprises=tuple(patch.surprise for patch in patches if patch.surprise is not None),
        )

    @staticmethod
    def describe_revision(image: int, step: int, steps: int, patches: Sequence[Patch], width: int) -> Revised:
        """The event of one step that draws tokens of a whole image again."""
        return Revised(image=image, step=step, steps=steps, patches=_patch_infos(patches, width))


def _patch_infos(patches: Sequence[Patch], width: int) -> tuple[PatchInfo, ...]:
    return tuple(
        PatchInfo(
            rank=patch.rank,
            position=patch.position,
            row=patch.position // width,
            col=patch.position % width,
            token=patch.token_id,
            confidence=round(patch.confidence, 4),
        )
        for patch in patches
    )


def parse_sequence_id(text: str) -> tuple[str, int, int]:
    """Job id, epoch and image index."""
    job_id, epoch, image = text.rsplit("/", 2)
    return job_id, int(epoch), int(image)


@dataclass(frozen=True)
class Prompts:
    """The prompts of a job as a model reads them."""

    condition_ids: tuple[int, ...]
    negative_ids: tuple[int, ...] | None = None


def read_prompts(params: GenerationParams, pipeline: Model) -> Prompts:
    """Raises InvalidPrompt, PromptTooLong."""
    negative = (params.negative_prompt or "").strip()
    return Prompts(
        pipeline.encode_prompt(params.prompt), _encode(pipeline, negative, "negative_prompt") if negative else None
    )


def _encode(pipeline: Model, prompt: str, field: str) -> tuple[int, ...]:
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
        plan=PlanSpec(**take(vars(params), [item.name for item in fields(PlanSpec)])),
        sampling=SamplingParams(**take(vars(params), [item.name for item in fields(SamplingParams)])),
        known=known,
    )
