"""`Client`: the server from ordinary code. Written by `make documents` from `oar_client/aio.py`: do not edit.

Threads: threads may share a client; one thread at a time reads an event stream. Forks: a client may be made before a
fork; each process opens connections of its own, and streams that were open stay with the parent.
"""

import contextlib
import ssl
import time
from collections.abc import Generator, Iterator
from typing import Self, Unpack

from oar_client import calls
from oar_client.address import Address
from oar_client.calls import PaintingFormat
from oar_client.connections import Connections
from oar_client.contact import CLOSE_SECONDS
from oar_client.ending import check_completed
from oar_client.errors import JobEnded, OarError, TimedOut
from oar_client.facts import JobView
from oar_client.feed import BREAKS, AnyEvent
from oar_client.options import EditOptions, Options
from oar_client.pictures import FrameOutput, Generation, Output, Picture, PictureSource
from oar_client.retry import Attempts, Patience
from oar_wire.events import TERMINAL_TYPES, Frame
from oar_wire.job import GenerationStatus
from oar_wire.model import ModelEntry
from oar_wire.openai import OutputFormat
from oar_wire.outputs import OutputKind, OutputLink

READY_PAUSE = 0.2


class ServerClient:
    """Talks to one server: what it has, and whether it is ready."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        silence: float = 60.0,
        patience: Patience | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """Nothing is sent yet. Raises BadRequest for an address that is none.

        base_url: else the environment variable OAR_URL, else http://127.0.0.1:8000
        api_key: else OAR_API_KEY, else none
        timeout: seconds that connecting, or one answer, may take
        silence: seconds after which an event stream that says nothing is opened again
        patience: how long what fails is tried again
        verify: as httpx has it; a context also serves for the websockets
        """
        self._connections = Connections(Address(base_url, api_key), timeout, silence, patience or Patience(), verify)
        self._connections.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections, those of open event streams too."""
        self._connections.close()

    def models(self) -> list[ModelEntry]:
        """Lists the server's models."""
        listing = self._connections.send(calls.get_models())
        return listing.data

    def model(self, name: str) -> ModelEntry:
        """Describes one of the models. Raises NotFound."""
        return self._connections.send(calls.get_model(name))

    def classes(self, name: str) -> tuple[str, ...]:
        """The classes of a model, by number; none where it reads no classes. Raises NotFound."""
        return (self._connections.send(calls.get_classes(name))).data

    def ready(self) -> bool:
        """Tells whether a request would be served now; asked once."""
        with contextlib.suppress(OarError):
            self._connections.fetch(calls.get_ready(), Attempts(Patience.none()))
            return True
        return False

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Raises TimedOut."""
        deadline = time.monotonic() + timeout
        while not self.ready():
            self._connections.check_open()
            if time.monotonic() + READY_PAUSE > deadline:
                raise TimedOut(f"the server was not ready within {timeout:g} s")
            self._connections.sleep(READY_PAUSE)


class Client(ServerClient):
    """Makes pictures on one server. Close it, or use it as a context manager."""

    def generate(
        self, prompt: str | None = None, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Generation:
        """Makes pictures and waits for them. Without `previews=True` none are made on the way.

        A wait that ends early, by `timeout` or an interrupt, cancels the job. Raises OarError.
        """
        chosen: Options = {"previews": False, **options}
        return self._await(self.submit(prompt, **chosen), timeout)

    def submit(
        self, prompt: str | None = None, *, idempotency_key: str | None = None, **options: Unpack[Options]
    ) -> "Job":
        """Returns as soon as the server has accepted the job. However often it is sent on the way, it is one job."""
        return Job(self._connections, self._connections.send(calls.post_generation(prompt, options, idempotency_key)))

    def edit(
        self,
        image: PictureSource,
        mask: PictureSource | None,
        prompt: str,
        *,
        timeout: float | None = None,
        **options: Unpack[EditOptions],
    ) -> Generation:
        """Paints again where the mask's alpha is 0, or the image's own where there is no mask, and waits as `generate`.

        With `offset` it paints around the image, with `strength` it varies it. Raises OarError, OSError.
        """
        chosen: EditOptions = {"previews": False, **options}
        return self._await(self.submit_edit(image, mask, prompt, **chosen), timeout)

    def submit_edit(
        self,
        image: PictureSource,
        mask: PictureSource | None,
        prompt: str,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[EditOptions],
    ) -> "Job":
        """Submits an edit as `submit` does."""
        call = calls.post_edit(image, mask, prompt, options, idempotency_key)
        return Job(self._connections, self._connections.send(call))

    def job(self, job_id: str) -> "Job":
        """A job that was submitted before, here or elsewhere. Raises NotFound."""
        return Job(self._connections, self._connections.send(calls.get_generation(job_id)))

    def jobs(self, model: str | None = None, *, limit: int = 100) -> list[GenerationStatus]:
        """Your jobs that wait or run, the oldest first, without their places in the queue; at most 100."""
        listing = self._connections.send(calls.get_generations(model, limit))
        return listing.data

    def _await(self, job: "Job", timeout: float | None) -> Generation:
        try:
            return job.wait(timeout)
        except JobEnded:
            raise
        except BaseException:
            with contextlib.suppress(OarError):  # nobody has its id: it would be painted for nobody
                self._connections.fetch(calls.delete_generation(job.id), Attempts(Patience.none()), CLOSE_SECONDS)
            raise


class Job(JobView):
    """A job on the server. `status` is how it was when we last asked."""

    def __init__(self, connections: Connections, status: GenerationStatus) -> None:
        self._connections = connections
        self.status = status

    def events(self, after: int = 0, *, timeout: float | None = None) -> "EventStream":
        """The events numbered above `after`, from the past on, up to the terminal one.

        A connection that breaks is opened again where it broke: no event comes twice, none is lost but previews that
        newer ones replaced. After `timeout` seconds it raises TimedOut, else an OarError when patience has ended.
        """
        return EventStream(self._connections, self.id, after, timeout)

    def wait(self, timeout: float | None = None) -> Generation:
        """The pictures. Raises JobFailed, JobCanceled, TimedOut (the job then goes on), OarError."""
        if self.status.status not in TERMINAL_TYPES:
            with self.events(self.status.seq, timeout=timeout) as events:
                for _ in events:
                    pass
            self.refresh()
        check_completed(self.status)
        return Generation(self.status, tuple(self.images()), tuple(self.outputs("video")))

    def frames(self, *, timeout: float | None = None) -> Generator[FrameOutput]:
        """The frames of its videos as they are made, each fetched when it is there. Frames of one video come in order.

        Raises as `wait`.
        """
        with self.events(timeout=timeout) as events:
            for event in events:
                if isinstance(event, Frame):
                    made = event.output
                    data = self._fetch_output(made)
                    yield FrameOutput(made.kind, made.index, made.media_type, data, event.image, event.frame)
        check_completed(self.refresh())

    def outputs(self, *kinds: OutputKind) -> list[Output]:
        """All that a completed job made, or what is of these kinds."""
        links = [link for link in self.status.outputs if link.kind in kinds or not kinds]
        return [Output(link.kind, link.index, link.media_type, self._fetch_output(link)) for link in links]

    def _fetch_output(self, made: OutputLink) -> bytes:
        call = calls.get_output(self.id, made.kind, made.index)
        return self._connections.fetch(call, self._connections.attempts())

    def refresh(self) -> GenerationStatus:
        """Asks the server how it is."""
        self.status = self._connections.send(calls.get_generation(self.id))
        return self.status

    def cancel(self) -> GenerationStatus:
        """Ends it: at once where it waits, within a step where it runs, not at all where it has ended."""
        self.status = self._connections.send(calls.delete_generation(self.id))
        return self.status

    def images(
        self, image_format: OutputFormat = "png", *, compression: int = 100, metadata: bool = True
    ) -> list[Picture]:
        """The pictures of a completed job. `compression` is the quality of WebP and JPEG, `metadata` whether a PNG
        carries what made it. Raises Conflict where the job is not completed."""
        indices = range(self.params.num_outputs("image"))
        return [self.image(index, image_format, compression=compression, metadata=metadata) for index in indices]

    def image(
        self, index: int, image_format: OutputFormat = "png", *, compression: int = 100, metadata: bool = True
    ) -> Picture:
        """One of them, counted from 0."""
        call = calls.get_image(self.id, index, image_format, compression, metadata=metadata)
        return Picture(index, image_format, self._connections.fetch(call, self._connections.attempts()))

    def painting(self, index: int = 0, image_format: PaintingFormat = "webp", *, size: int = 320) -> bytes:
        """Fetches the painting of a completed job's picture, as an animation of at most `size` pixels a side."""
        call = calls.get_painting(self.id, index, image_format, size)
        return self._connections.fetch(call, self._connections.attempts())


class EventStream:
    """Iterates over a job's events. Close it, use it as a context manager, or read it to its end."""

    def __init__(self, connections: Connections, job_id: str, after: int, timeout: float | None) -> None:
        self._connections = connections
        self._job_id = job_id
        self._feed = connections.feed(after, timeout)
        self._events = self._read()

    @property
    def seq(self) -> int:
        """Number of the last event: where another stream could go on."""
        return self._feed.seq

    def __iter__(self) -> Iterator[AnyEvent]:
        return self

    def __next__(self) -> AnyEvent:
        return self._events.__next__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its websocket."""
        self._events.close()

    def _read(self) -> Generator[AnyEvent]:
        feed, connections = self._feed, self._connections
        while not feed.has_ended:
            try:
                with connections.open_stream(self._job_id, feed.seq) as socket:
                    feed.opened()
                    while not feed.has_ended:
                        feed.check_time()
                        event = feed.accept(connections.receive(socket, feed.patience))
                        if event is not None:
                            yield event
            except BREAKS as error:
                connections.check_open()
                connections.sleep(feed.broke(error))
            if feed.is_in_doubt:
                connections.sleep(feed.settle(connections.send(calls.get_generation(self._job_id))))
