"""The model in this process, as what makes pictures: the engine's steps, told as a job's events."""

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count

from oar_cli.failure import CommandFailed
from oar_cli.making import Shape, Upload
from oar_cli.settings_options import load_settings
from oar_client import AnyEvent
from oar_core.engine.events import EngineEvent, PatchesDecoded, PatchesRevised, SequenceFinished
from oar_core.errors import OarError as LibraryError
from oar_core.models.model import ModelBase
from oar_core.sampling.expectation import Expectation
from oar_wire.classes import KIND, ClassNames
from oar_wire.edit import EditFields, edit_steps
from oar_wire.error import ServerError
from oar_wire.events import Canceled, Completed, Event, Queued, Started
from oar_wire.job import GenerationParams, ImageLink, Timings
from oar_wire.openai import OutputFormat
from oar_wire.options import BadOption, prompts_of
from oar_wire.request import GenerationRequest
from server.api.pictures import Rendition, recipe, render
from server.api.prompts import with_class
from server.api.uploads import Source, prepare
from server.api.uploads import Upload as CheckedUpload
from server.api.validation import check_makes, refusal, resolve
from server.jobs.worker_queue import LATE
from server.worker.edits import JobEdit
from server.worker.models import LoadedModel, load_models, thread_guard
from server.worker.preview import render_pngs, render_previews
from server.worker.preview_budget import PreviewBudget
from server.worker.running import Canvas, RunningJob, Snapshot, read_prompts, sequence_request

ID = "here"


class InProcess:
    """One job of its own engine. Raises click.ClickException for what the model cannot paint."""

    waiting = "the model is here"

    def __init__(self, request: GenerationRequest, upload: Upload | None) -> None:
        self.id = ID
        self._settings = load_settings({"models": (request.model,)} if request.model else {})
        self._created_at = self._started_at = time.time()
        self._finished_at: float | None = None
        self._canceled = threading.Event()
        self._seq = count(1)
        self._pngs: tuple[bytes, ...] = ()
        self._budget = PreviewBudget(self._settings.preview_interval, self._settings.preview_batch)
        self._next_previews_at = 0.0
        try:
            (self._model, *_) = load_models(self._settings)
            check_makes(self._model.info(), "image")
            self.params, self._edit = self._resolve(self._model, request, upload)
            self._prompts = read_prompts(self.params, self._model.pipeline)
        except (LibraryError, ServerError) as error:
            raise CommandFailed(error) from error
        self.shape = Shape(self._model.pipeline.grid, self._model.pipeline.image_size)
        vocabulary = self._model.pipeline.vocabulary
        self.warnings = () if vocabulary is None else vocabulary.warnings(prompts_of(self.params).values())

    def _resolve(
        self, model: LoadedModel, request: GenerationRequest, upload: Upload | None
    ) -> tuple[GenerationParams, JobEdit | None]:
        """As the API and the worker do, one after the other."""
        info = model.info()
        params = self._with_class(resolve(request, info, self._settings), model.pipeline, request)
        if upload is None:
            return params, None
        assert isinstance(request, EditFields)
        mask = None if upload.mask is None else CheckedUpload(upload.mask, "mask")
        source: Source = prepare(CheckedUpload(upload.image, "image"), mask, request, info, self._settings)
        steps = edit_steps(params.steps, info.num_tokens - source.params.num_kept)
        params = params.model_copy(update={"edit": source.params, "steps": steps})
        return params, JobEdit.open(model.drawing, source.params, source.png, seed=params.seed)

    @staticmethod
    def _with_class(params: GenerationParams, pipeline: ModelBase, request: GenerationRequest) -> GenerationParams:
        """Raises InvalidRequest."""
        classes = ClassNames.from_json(pipeline.conditioner.to_json()) if pipeline.conditioner.kind == KIND else None
        try:
            return params if classes is None else with_class(params, classes, request.condition)
        except BadOption as error:
            raise refusal(error) from error

    def events(self) -> Iterator[AnyEvent]:
        """Raises click.ClickException."""
        self._started_at = time.time()
        yield self._stamped(Queued())
        yield self._stamped(Started())
        canvases = [Canvas(self._edit.given) if self._edit else Canvas() for _ in range(self.params.n)]
        finished: dict[int, tuple[int, ...]] = {}
        engine, guard = self._model.engine, thread_guard(self._settings)
        try:
            for image, canvas in enumerate(canvases):
                engine.add(sequence_request(self.params, self._prompts, str(image), image, canvas.known))
            while engine.has_work and not self._canceled.is_set() and not self._is_late:
                if guard is not None:
                    guard.look()
                for event in engine.step():
                    yield from self._told(event, canvases, finished)
                yield from self._previews(canvases, finished)
        except LibraryError as error:
            raise CommandFailed(error) from error
        finally:
            for image in range(self.params.n):
                engine.abort(str(image))
        self._finished_at = time.time()
        if self._canceled.is_set():
            yield self._stamped(Canceled())
            return
        if len(finished) < self.params.n:
            yield self._stamped(LATE)
            return
        tokens = [finished[image] for image in range(self.params.n)]
        self._pngs = render_pngs(self._model.drawing, tokens, self._edit)
        links = tuple(ImageLink(index=image, url="") for image in range(self.params.n))
        yield self._stamped(Completed(images=links, seconds=self._finished_at - self._started_at))

    @property
    def _is_late(self) -> bool:
        deadline = self.params.deadline
        return deadline is not None and time.time() > self._created_at + deadline

    def _told(
        self, event: EngineEvent, canvases: Sequence[Canvas], finished: dict[int, tuple[int, ...]]
    ) -> Iterator[Event]:
        if isinstance(event, PatchesDecoded):
            image = int(event.sequence_id)
            canvases[image].add(
                (patch.position for patch in event.patches), (patch.token_id for patch in event.patches)
            )
            layout = self._model.drawing.backbone.spec.layout
            yield self._stamped(RunningJob.describe(image, event.step, event.steps, event.patches, layout))
        elif isinstance(event, PatchesRevised):
            image = int(event.sequence_id)
            canvases[image].redrawn |= {patch.position: patch.token_id for patch in event.patches}
            layout = self._model.drawing.backbone.spec.layout
            yield self._stamped(RunningJob.describe_revision(image, event.step, event.steps, event.patches, layout))
        elif isinstance(event, SequenceFinished):
            finished[int(event.sequence_id)] = event.token_ids

    def _previews(self, canvases: Sequence[Canvas], finished: dict[int, tuple[int, ...]]) -> Iterator[Event]:
        now = time.monotonic()
        if now < self._next_previews_at:
            return
        due = [
            (image, canvas)
            for image, canvas in enumerate(canvases)
            if self.params.previews
            and image not in finished
            and len(canvas.positions) > canvas.num_previewed
            and now - canvas.previewed_at >= self._settings.preview_interval
        ][: self._budget.most(self._model.name)]
        if not due:
            return
        snapshots = [
            Snapshot(image, tuple(canvas.shown), tuple(canvas.shown.values()), self._edit, None, self._guess(image))
            for image, canvas in due
        ]
        previews = render_previews(self._model.drawing, snapshots)
        ended = time.monotonic()
        self._budget.spend(self._model.name, ended - now, len(due))
        self._next_previews_at = ended + self._budget.end_round()
        for (_, canvas), preview in zip(due, previews):
            canvas.num_previewed, canvas.previewed_at = len(canvas.positions), ended
            yield self._stamped(preview)

    def _guess(self, image: int) -> Expectation | None:
        """What a preview shows where nothing is drawn; None where the image tokenizer knows."""
        return self._model.engine.expect(str(image)) if self._model.drawing.guesses_unknown else None

    def _stamped(self, event: Event) -> Event:
        return event.model_copy(update={"seq": next(self._seq), "job_id": self.id, "at": round(time.time(), 3)})

    def cancel(self) -> None:
        self._canceled.set()

    def pictures(self, kind: OutputFormat) -> list[bytes]:
        return [
            render(png, Rendition(kind), recipe(self.params, image, self._model.fingerprint))
            for image, png in enumerate(self._pngs)
        ]

    def timings(self) -> Timings:
        return Timings(created_at=self._created_at, started_at=self._started_at, finished_at=self._finished_at)

    def close(self) -> None:
        """Nothing is open."""
