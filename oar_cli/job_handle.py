"""The job of `oar generate` or `oar edit`: on a server, or of the model in this process.

Both have the same events, so that what shows them need not know which it is.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import click

from oar_client import AnyEvent, Client, EditOptions, Job, OarError, Options, Patience
from oar_wire.job import GenerationParams, Timings
from oar_wire.model import ModelEntry
from oar_wire.openai import OutputFormat
from oar_wire.request import GenerationRequest

LOOK_SECONDS = 1.0  # between looks at the queue while a job waits in it
QUICK_SECONDS = 5.0


@dataclass(frozen=True)
class EditUpload:
    """The pictures of an edit, as their files hold them."""

    image: bytes
    mask: bytes | None


@dataclass(frozen=True)
class Shape:
    """Sizes of a model's pictures: tokens (h, w) and pixels (Y, X)."""

    grid: tuple[int, int]
    image_size: tuple[int, int]

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


class JobHandle(Protocol):
    """One job on its way. `events` may be read in another thread than the one that cancels."""

    @property
    def id(self) -> str: ...
    @property
    def params(self) -> GenerationParams: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def waiting(self) -> str:
        """Names what it waits for, in a few words."""
        ...

    def events(self) -> Iterator[AnyEvent]:
        """Up to the terminal one. Raises OarError, click.ClickException."""
        ...

    def cancel(self) -> None: ...
    def pictures(self, kind: OutputFormat) -> list[bytes]:
        """Once it has completed."""
        ...

    def timings(self) -> Timings: ...
    def close(self) -> None: ...


class OnServer:
    """A job of a server. Raises OarError wherever the server is asked."""

    def __init__(
        self, url: str, api_key: str | None, request: GenerationRequest, upload: EditUpload | None, key: str | None
    ) -> None:
        self._is_started = threading.Event()
        self._client = Client(url, api_key=api_key)
        # Whoever looks or cancels by the way does not wait for a server that is away.
        self._quick = Client(url, api_key=api_key, timeout=QUICK_SECONDS, patience=Patience.none())
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            # What was not said is the server's to choose: a priority, for one, that a tenant may have.
            given = request.model_dump(exclude_unset=True, exclude={"prompt"}, by_alias=True)
            model = _find_model(self._client, request.model)
            self._job: Job = _submit(self._client, request.prompt, given, upload, key)
            stack.callback(self._cancel_if_possible)
            model = model or self._client.model(self._job.params.model)
            stack.pop_all()
        self.shape = Shape(model.grid, model.image_size)
        self.waiting = _place(self._job)

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def params(self) -> GenerationParams:
        return self._job.params

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._job.warnings

    def events(self) -> Iterator[AnyEvent]:
        looking = threading.Thread(target=self._look, daemon=True)
        looking.start()
        try:
            for event in self._job.events():
                if event.type != "queued":
                    self._is_started.set()
                yield event
        finally:
            self._is_started.set()

    def _look(self) -> None:
        """The queue moves, and says so to those who ask."""
        while not self._is_started.wait(LOOK_SECONDS):
            try:
                self.waiting = _place(self._quick.job(self.id))
            except OarError:
                return  # the stream will tell what is wrong

    def cancel(self) -> None:
        self._quick.job(self.id).cancel()

    def _cancel_if_possible(self) -> None:
        with contextlib.suppress(OarError):
            self.cancel()

    def pictures(self, kind: OutputFormat) -> list[bytes]:
        return [picture.data for picture in self._job.images(kind)]

    def timings(self) -> Timings:
        return self._job.refresh().timings

    def close(self) -> None:
        self._is_started.set()
        self._client.close()
        self._quick.close()


def _find_model(client: Client, name: str | None) -> ModelEntry | None:
    """The one that is named, or the server's default, if there is any. Raises click.ClickException for one that makes
    no images."""
    model = client.model(name) if name else next((model for model in client.models() if model.is_default), None)
    if model is not None and "image" not in model.outputs:
        raise click.ClickException(f"{model.id} makes no images; the studio and oar_client show what it makes")
    return model


def _submit(client: Client, prompt: str, given: dict[str, Any], upload: EditUpload | None, key: str | None) -> Job:
    if upload is None:
        return client.submit(prompt, idempotency_key=key, **cast("Options", given))
    return client.submit_edit(upload.image, upload.mask, prompt, idempotency_key=key, **cast("EditOptions", given))


def _place(job: Job) -> str:
    ahead, eta = job.status.position, job.status.eta
    words = ["queued"]
    if ahead is not None:
        words.append(f"{ahead} ahead" if ahead else "next")
    if eta is not None:
        words.append(f"about {eta:.1f} s")
    return ", ".join(words)
