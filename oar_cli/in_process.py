"""A job of the model in this process: the worker's runner over a job log in memory."""

import asyncio
from collections.abc import Iterator, Sequence

from oar_cli.failure import CommandFailed
from oar_cli.job_handle import EditUpload, Shape
from oar_cli.settings_options import load_settings
from oar_client import AnyEvent
from oar_core.errors import LibraryError
from oar_core.models.model import ModelBase
from oar_wire.classes import KIND, ClassNames
from oar_wire.edit import EditFields
from oar_wire.error import ServerError
from oar_wire.job import GenerationParams, Timings
from oar_wire.openai import OutputFormat
from oar_wire.options import BadOption, prompts_of
from oar_wire.request import GenerationRequest
from server.api.pictures import Rendition, recipe, render
from server.api.prompts import with_class
from server.api.uploads import EditSource, prepare, with_edit
from server.api.uploads import Upload as CheckedUpload
from server.api.validation import check_makes, option_error, resolve
from server.jobs.events import StoredEvent
from server.jobs.memory_log import MemoryJobLog
from server.observability.metrics import WorkerMetrics
from server.settings import Settings
from server.tasks import stop_tasks
from server.worker.execution import Execution
from server.worker.models import LoadedModel, load_models
from server.worker.requests import read_prompts

ID = "here"
RENEW_SECONDS = 0.1  # between looks at a cancel and the deadline while no step ends


class InProcess:
    """One job of its own engine. Raises click.ClickException for what the model cannot paint."""

    waiting = "the model is here"

    def __init__(self, request: GenerationRequest, upload: EditUpload | None) -> None:
        self.id = ID
        self._settings = load_settings({"models": (request.model,)} if request.model else {})
        try:
            (self._model, *_) = load_models(self._settings)
            check_makes(self._model.info(), "image")
            self.params, source = _accept(self._model, request, upload, self._settings)
            if not self._model.pipeline.backbone.spec.feature_width:
                read_prompts(self.params, self._model.pipeline)
        except (LibraryError, ServerError) as error:
            raise CommandFailed(error) from error
        self.shape = Shape(self._model.pipeline.grid, self._model.pipeline.image_size)
        vocabulary = self._model.pipeline.vocabulary
        self.warnings = () if vocabulary is None else vocabulary.warnings(prompts_of(self.params).values())
        self._log = MemoryJobLog()
        self._claim = self._log.submit(ID, self.params, None if source is None else source.png)

    def events(self) -> Iterator[AnyEvent]:
        """Raises click.ClickException."""
        with asyncio.Runner() as loop:
            execution = loop.run(self._open())
            needed = loop.run(self._begin(execution))
            seq = 0
            try:
                while True:
                    for event in loop.run(self._next(seq, needed)):
                        seq = event.seq
                        yield event.parse()
                        if event.is_terminal:
                            return
            except LibraryError as error:
                raise CommandFailed(error) from error
            finally:
                loop.run(execution.stop())

    async def _open(self) -> Execution:
        models = {self._model.name: self._model}
        return Execution(self._settings, self._log, models, WorkerMetrics(tuple(models)))

    async def _begin(self, execution: Execution) -> Sequence[asyncio.Future[None]]:
        needed = execution.start()
        await execution.begin(self._claim)
        return *needed, asyncio.create_task(_renew(execution))

    async def _next(self, seq: int, needed: Sequence[asyncio.Future[None]]) -> Sequence[StoredEvent]:
        """Raises what one of those who are needed has raised."""
        events = asyncio.create_task(self._log.follow(self.id, seq))
        try:
            done, _ = await asyncio.wait((events, *needed), return_when=asyncio.FIRST_COMPLETED)
            for future in done - {events}:
                future.result()
            return events.result()
        finally:
            await stop_tasks([events])

    def cancel(self) -> None:
        self._log.cancel(self.id)

    def pictures(self, kind: OutputFormat) -> list[bytes]:
        return [
            render(png, Rendition(kind), recipe(self.params, image, self._model.fingerprint))
            for image, png in enumerate(self._log.result(self.id).images)
        ]

    def timings(self) -> Timings:
        result = self._log.result(self.id)
        return Timings(created_at=result.created_at, started_at=result.created_at, finished_at=result.finished_at)

    def close(self) -> None:
        """Nothing is open."""


def _accept(
    model: LoadedModel, request: GenerationRequest, upload: EditUpload | None, settings: Settings
) -> tuple[GenerationParams, EditSource | None]:
    """Accepts a request as the API does. Raises a ServerError."""
    info = model.info()
    params = _with_class(resolve(request, info, settings), model.pipeline, request)
    if upload is None:
        return params, None
    assert isinstance(request, EditFields)
    mask = None if upload.mask is None else CheckedUpload(upload.mask, "mask")
    source = prepare(CheckedUpload(upload.image, "image"), mask, request, info, settings)
    return with_edit(params, source, info), source


def _with_class(params: GenerationParams, pipeline: ModelBase, request: GenerationRequest) -> GenerationParams:
    """Raises InvalidRequest."""
    classes = ClassNames.from_json(pipeline.conditioner.to_json()) if pipeline.conditioner.kind == KIND else None
    try:
        return params if classes is None else with_class(params, classes, request.condition)
    except BadOption as error:
        raise option_error(error) from error


async def _renew(execution: Execution) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        await execution.renew()
