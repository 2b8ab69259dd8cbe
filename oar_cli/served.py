"""Pictures of an export, drawn by a running server: its workers share the queue."""

import contextlib
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from oar_client import Client, Generation, Job, ModelEntry, OarError, Options
from oar_lab.eval.export import Pixels, Source, picture_seed


@dataclass(frozen=True)
class ExportSubject:
    """The subjects of the pictures: the number of a class, a prompt, or nothing where the model reads neither."""

    kind: str  # of condition, as the model's entry says it
    prompts: list[str]

    def options(self, index: int) -> Options:
        return {"condition": {"class": int(self.prompts[index])}} if self.kind == "class" else {}

    def prompt(self, index: int) -> str | None:
        return self.prompts[index] if self.kind == "text" else None


def find_model(client: Client, name: str | None) -> ModelEntry:
    """The model of that name, or the server's default one. Raises OarError."""
    return client.model(name) if name else next(entry for entry in client.models() if entry.is_default)


def drawn_there(client: Client, subject: ExportSubject, options: Options, seed: int, most_waiting: int) -> Source:
    """One job a picture, so many of which are under way at once; they are handed on in their order.

    Drawing raises OarError where the server refuses or fails; what is under way then is canceled.
    """

    def draw(indices: range) -> Iterator[Pixels]:
        ahead = deque[Job]()
        try:
            for index in indices:
                if len(ahead) == most_waiting:
                    yield _pixels(ahead.popleft().wait())
                own: Options = {**options, **subject.options(index), "seed": picture_seed(seed, index)}
                ahead.append(client.submit(subject.prompt(index), **own))
            while ahead:
                yield _pixels(ahead.popleft().wait())
        finally:
            for job in ahead:
                with contextlib.suppress(OarError):
                    job.cancel()

    return draw


def _pixels(made: Generation) -> Pixels:
    (picture,) = made.images
    with Image.open(io.BytesIO(picture.data)) as image:
        return np.asarray(image.convert("RGB"))
