"""Videos of values: what one asks for, how far it is, and the step that denoises a frame of each.

A frame is denoised in a few steps, each of which guesses the clean one and adds less noise than the one before (Self
Forcing, arXiv 2506.08009). The last guess is the frame: it is reported, and committed by the step that begins the next
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from oar_core.errors import RequestError, SamplingError
from oar_core.models.base import Condition, Prefix
from oar_core.models.frames import FrameBackbone, FramesSpec
from oar_core.nn.kv_cache import KVCache
from oar_core.sampling.noise import normal, value_noise_key
from oar_core.sampling.request import check_condition
from oar_core.sampling.rows import Slots

Frame = Float[Tensor, "C Y X"]  # in fp32, on the host


@dataclass(frozen=True, eq=False)
class FrameRequest:
    """One video to make. `known` are its first frames, its own earlier output: it goes on as if it had never stopped.

    Raises SamplingError."""

    id: str
    condition_ids: Prefix
    seed: int
    image_index: int
    guidance: float = 1.0  # 1 is off: no second slot
    known: tuple[Frame, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.guidance < float("inf"):
            raise SamplingError(f"guidance is {self.guidance}; a finite number from 0 is needed", field="guidance")

    @property
    def is_guided(self) -> bool:
        return self.guidance != 1.0

    def check_fits(self, spec: FramesSpec) -> None:
        """Raises a RequestError where the model cannot serve this."""
        check_condition(self.condition_ids, spec)
        if len(self.known) > spec.layout.num_frames:
            raise RequestError(
                f"known holds {len(self.known)} frames; this model makes {spec.layout.num_frames}", field="known"
            )
        if any(frame.shape != spec.layout.frame_shape for frame in self.known):
            raise RequestError("known holds a frame of another shape than the model's", field="known")


@dataclass(frozen=True, eq=False)
class FrameRow:
    """One video's part in a step: commit frames to its slots, then guess the current one, unless it only commits."""

    slots: Slots
    commits: tuple[Frame, ...]
    guess: Frame  # of the step before; nothing, where the frame begins
    sigma: float | None  # of the noise that is added to it; None: nothing is denoised
    draw: int  # number of the noise
    noise_key: int
    guidance: float


class FrameProgress:
    """The state of one video, apart from its cache entries.

    Invariant: before a step the slots hold the first of its frames; the step commits the others, oldest first. All but
    the latest are owed, where a video goes on after an interruption; they may be committed by steps that do no more.
    """

    def __init__(self, request: FrameRequest, spec: FramesSpec) -> None:
        """Raises a RequestError for a request that the model cannot serve."""
        request.check_fits(spec)
        self.request = request
        self.frames: list[Frame] = list(request.known)
        self._spec = spec
        self.steps = spec.steps
        self._num_committed = 0
        self._frame_entries = spec.layout.num_places * (2 if request.is_guided else 1)  # of one frame, in all slots
        self.needs_prefill = True  # whether its slots hold nothing of it yet
        self._stage = 0  # denoising steps of the current frame that are done
        self._guess = torch.zeros(spec.layout.frame_shape)
        self._noise_key = value_noise_key(request.seed, request.image_index)

    def conditions(self, unconditional_ids: tuple[int, ...]) -> tuple[Prefix, ...]:
        """Prefixes that its slots start with: the video's condition, and the one that guidance steers away from."""
        return self.request.condition_ids, unconditional_ids

    @property
    def is_complete(self) -> bool:
        return len(self.frames) == self._spec.layout.num_frames

    @property
    def step(self) -> int:
        """The step that comes next, counted from 1."""
        return len(self.frames) * len(self._spec.sigmas) + self._stage + 1

    @property
    def num_steps_left(self) -> int:
        return self.steps - self.step + 1

    @property
    def owed(self) -> int:
        """Number of entries that the slots lack before the current frame can be denoised, the latest frame aside."""
        return self._num_owed * self._frame_entries

    @property
    def _num_owed(self) -> int:
        return 0 if self.is_complete else max(0, len(self.frames) - 1 - self._num_committed)

    def chunk(self, most: float) -> int:
        """Number of owed entries that the next step takes in: whole frames, and at least one unless `most` is 0."""
        if self.owed <= most:
            return self.owed
        return 0 if most <= 0 else max(1, int(most // self._frame_entries)) * self._frame_entries

    def prefill(self, chunk: int) -> tuple[Frame, ...]:
        """The frames of a chunk, which count as committed from here on; the slots count as filled."""
        self.needs_prefill = False
        return self._take(chunk // self._frame_entries)

    def next_row(self, slots: Slots, chunk: int) -> FrameRow:
        """Plans the next step of this video. The row counts as carried out from here on, but for its
        guess."""
        commits = self.prefill(chunk)
        is_ready = not self._num_owed
        if is_ready:
            commits += self._take(len(self.frames) - self._num_committed)
        return FrameRow(
            slots=slots,
            commits=commits,
            guess=self._guess,
            sigma=self._spec.sigmas[self._stage] if is_ready else None,
            draw=self.step,
            noise_key=self._noise_key,
            guidance=self.request.guidance,
        )

    def accept(self, guess: Frame | None) -> Frame | None:
        """Takes in what a step guessed; returns the frame that it finished."""
        if guess is None:
            return None
        self._stage += 1
        if self._stage < len(self._spec.sigmas):
            self._guess = guess
            return None
        self._stage, self._guess = 0, torch.zeros_like(guess)
        self.frames.append(guess)
        return guess

    def _take(self, num_frames: int) -> tuple[Frame, ...]:
        start = self._num_committed
        self._num_committed = start + num_frames
        return tuple(self.frames[start : self._num_committed])


@torch.inference_mode()
def prefill_frames(
    backbone: FrameBackbone,
    cache: KVCache,
    videos: Sequence[tuple[FrameProgress, Slots, int]],
    unconditional_ids: tuple[int, ...],
) -> None:
    """Resets the slots of videos and fills them: their conditions, then a chunk of what each owes."""
    rows = [
        (slot, ids)
        for progress, slots, _ in videos
        for slot, ids in zip(slots.all, progress.conditions(unconditional_ids))
    ]
    rows.sort()
    condition = Condition.stack([ids for _, ids in rows], cache.keys.device)
    backbone.prefill(cache, torch.tensor([slot for slot, _ in rows]), condition)
    _commit(backbone, cache, [(slots, progress.prefill(chunk)) for progress, slots, chunk in videos])


@torch.inference_mode()
def frame_step(backbone: FrameBackbone, cache: KVCache, rows: Sequence[FrameRow]) -> list[Frame | None]:
    """Commits what rows commit, then guesses the current frame of each; the guesses come in the order of `rows`.

    A commit and a guess are calls of their own, and a commit is one frame of each slot: what a video goes on from is
    made by the same calls, whether it was interrupted or not.
    """
    _commit(backbone, cache, [(row.slots, row.commits) for row in rows])
    asked = sorted(
        (index for index, row in enumerate(rows) if row.sigma is not None),
        key=lambda index: rows[index].slots.conditional,
    )
    guesses = dict(zip(asked, _guess(backbone, cache, [rows[index] for index in asked]) if asked else ()))
    return [guesses.get(index) for index in range(len(rows))]


def _commit(backbone: FrameBackbone, cache: KVCache, commits: Sequence[tuple[Slots, Sequence[Frame]]]) -> None:
    """One frame of each slot at a time, oldest first."""
    for turn in range(max((len(frames) for _, frames in commits), default=0)):
        entries = sorted(
            (slot, index) for index, (slots, frames) in enumerate(commits) if turn < len(frames) for slot in slots.all
        )
        frames = torch.stack([commits[index][1][turn] for _, index in entries]).to(cache.keys.device)
        backbone.commit(cache, torch.tensor([slot for slot, _ in entries]), frames)


def _guess(backbone: FrameBackbone, cache: KVCache, rows: Sequence[FrameRow]) -> list[Frame]:
    device = cache.keys.device
    sigmas = torch.tensor([row.sigma for row in rows], dtype=torch.float32).to(device)
    keys, draws = (torch.tensor(values).to(device) for values in zip(*((row.noise_key, row.draw) for row in rows)))
    clean = torch.stack([row.guess for row in rows]).to(device)
    noise = normal(keys, draws, clean[0].numel()).view_as(clean)
    scale = sigmas[:, None, None, None]
    noisy = (1 - scale) * clean + scale * noise
    entries = sorted((slot, index, part) for index, row in enumerate(rows) for part, slot in enumerate(row.slots.all))
    of_slot = torch.tensor([index for _, index, _ in entries]).to(device)
    slots = torch.tensor([slot for slot, _, _ in entries])
    guesses = backbone.denoise(cache, slots, noisy[of_slot], sigmas[of_slot])
    place = {(index, part): where for where, (_, index, part) in enumerate(entries)}
    pairs = [(place[index, 0], place[index, len(row.slots.all) - 1]) for index, row in enumerate(rows)]
    conditional, unconditional = (guesses[list(side)] for side in zip(*pairs))
    guidance = torch.tensor([row.guidance for row in rows], dtype=torch.float32).to(device)[:, None, None, None]
    # A row without guidance stands in for its own pair, which leaves its guess bit for bit.
    return list((unconditional + guidance * (conditional - unconditional)).cpu().unbind())


@torch.inference_mode()
def generate_frames(
    backbone: FrameBackbone, requests: Sequence[FrameRequest], unconditional_ids: tuple[int, ...]
) -> list[tuple[Frame, ...]]:
    """The reference loop: makes all the requested videos together. The engine equals it.

    Raises a RequestError before any work where a request cannot be served.
    """
    videos = [FrameProgress(request, backbone.spec) for request in requests]
    free = count()
    slots = [Slots(next(free), next(free) if request.is_guided else None) for request in requests]
    cache = backbone.new_cache(next(free))
    if videos:
        owed = [(video, pair, video.owed) for video, pair in zip(videos, slots)]
        prefill_frames(backbone, cache, owed, unconditional_ids)
    while active := [index for index, video in enumerate(videos) if not video.is_complete]:
        rows = [videos[index].next_row(slots[index], 0) for index in active]
        for index, guess in zip(active, frame_step(backbone, cache, rows)):
            videos[index].accept(guess)
    return [tuple(video.frames) for video in videos]
