"""Pictures of a job while they are painted: which positions, at which rank, with which confidence."""

import base64
from dataclasses import dataclass, field

from oar_client.feed import AnyEvent
from oar_wire.events import (
    TERMINAL_TYPES,
    Completed,
    Failed,
    Frame,
    Partial,
    Patches,
    PatchInfo,
    Preview,
    Restarted,
    Revised,
)
from oar_wire.outputs import OutputLink


@dataclass
class ImageCanvas:
    """One picture, or one video, which has frames in place of patches. Positions count row by row:
    `position = row * columns + column`."""

    index: int
    patches: dict[int, PatchInfo] = field(default_factory=dict[int, PatchInfo])  # by position, in decode order
    revised: set[int] = field(default_factory=set[int])  # positions whose tokens were drawn again
    step: int = 0  # the latest, counted from 1
    steps: int = 0  # how many it takes; an upper bound under adaptive group sizes
    preview: Preview | Partial | None = None  # the one that shows most
    frames: dict[int, OutputLink] = field(default_factory=dict[int, OutputLink])  # by number, where they are found

    @property
    def num_written(self) -> int:
        """Positions that this job has decoded; those that an edit keeps are not among them."""
        return len(self.patches)

    @property
    def num_known(self) -> int:
        """Positions that are known, those that an edit keeps among them as soon as a preview told of them."""
        return max(self.num_written, self.preview.known if self.preview else 0)

    @property
    def is_sequence(self) -> bool:
        """Whether its tokens have no place in the picture: each tells of all of it."""
        return any(patch.row is None for patch in self.patches.values())

    @property
    def is_drawn(self) -> bool:
        return 0 < self.steps <= self.step

    def rank(self, position: int) -> int | None:
        """Rank at which it was written, counted from 0; None for one that is not."""
        patch = self.patches.get(position)
        return None if patch is None else patch.rank

    def confidence(self, position: int) -> float | None:
        """The probability that the model gave to the token that was drawn."""
        patch = self.patches.get(position)
        return None if patch is None else patch.confidence

    @property
    def preview_bytes(self) -> bytes | None:
        """The latest preview as WebP."""
        return None if self.preview is None else base64.b64decode(self.preview.data)

    def take(self, event: Patches) -> None:
        self.step, self.steps = event.step, event.steps
        self.patches |= {patch.position: patch for patch in event.patches}

    def add(self, event: Frame) -> None:
        self.step, self.steps = event.step, event.steps
        self.frames[event.frame] = event.output

    def revise(self, event: Revised) -> None:
        """Each position keeps the rank at which it was first written."""
        for patch in event.patches:
            first = self.patches.get(patch.position, patch)
            self.patches[patch.position] = patch.model_copy(update={"rank": first.rank})
            self.revised.add(patch.position)

    def show(self, event: Preview | Partial) -> None:
        """Partial images and previews have clocks of their own."""
        if self.preview is None or event.known >= self.preview.known:
            self.preview = event

    def keep(self, count: int) -> None:
        """Forgets what was written after the first `count` positions, or made after as many frames."""
        self.frames = {number: made for number, made in self.frames.items() if number < count}
        lost = len(self.patches) - count
        self.patches = dict(list(self.patches.items())[:count])
        self.revised &= set(self.patches)
        if not count:
            self.preview, self.step = None, 0
        elif lost > 0:
            self.preview = None


class Canvas:
    """Feeds on a job's events, from the first one on. Events of unknown types change nothing."""

    def __init__(self, n: int = 1) -> None:
        """`n` is the job's number of pictures, `job.params.n`; more are added as events name them."""
        self.images = [ImageCanvas(index) for index in range(n)]
        self.is_started = False
        self.attempt = 0  # of how many workers have begun it
        self.end: AnyEvent | None = None  # the terminal event
        self.at = 0.0  # Unix seconds, of the latest event

    def feed(self, event: AnyEvent) -> None:
        self.at = max(self.at, event.at)
        match event:
            case Patches():
                self._image(event.image).take(event)
            case Frame():
                self._image(event.image).add(event)
            case Revised():
                self._image(event.image).revise(event)
            case Preview() | Partial():
                self._image(event.image).show(event)
            case Restarted():
                self.attempt = event.attempt
                for image in self.images:
                    image.keep(event.known[image.index] if image.index < len(event.known) else 0)
            case _ if event.type == "started":
                self.is_started, self.attempt = True, max(1, self.attempt)
            case _ if event.type in TERMINAL_TYPES:
                self.end = event
            case _:
                return

    @property
    def step(self) -> int:
        """Steps that are done, of all pictures together."""
        return sum(image.step for image in self.images)

    @property
    def steps(self) -> int:
        """Steps of all pictures together, as far as is known: those that have not begun count as the longest one."""
        longest = max((image.steps for image in self.images), default=0)
        return sum(image.steps or longest for image in self.images)

    @property
    def rank(self) -> int:
        """Number of written positions of the picture that is furthest."""
        return max((image.num_written for image in self.images), default=0)

    @property
    def num_drawn(self) -> int:
        """Pictures that are drawn to the last position."""
        return sum(image.is_drawn for image in self.images)

    @property
    def is_complete(self) -> bool:
        return isinstance(self.end, Completed)

    @property
    def failure(self) -> Failed | None:
        return self.end if isinstance(self.end, Failed) else None

    def _image(self, index: int) -> ImageCanvas:
        while len(self.images) <= index:
            self.images.append(ImageCanvas(len(self.images)))
        return self.images[index]
