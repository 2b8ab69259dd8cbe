"""Turns what the engine reports into events of the jobs."""

import time
from collections.abc import Mapping, Sequence

from oar_core.engine.events import (
    EngineEvent,
    FrameMade,
    Patch,
    PatchesDecoded,
    PatchesRevised,
    SequenceAborted,
    SequenceFinished,
)
from oar_core.models.base import TokenLayout
from oar_wire.events import Patches, PatchInfo, Revised
from server.observability.metrics import WorkerMetrics
from server.worker.engine_thread import SequenceRefused, Stepped
from server.worker.models import LoadedModel
from server.worker.outputs import OutputWriter
from server.worker.runner import Runner
from server.worker.running import RunningJob
from server.worker.speed import MeasuredSpeed
from server.worker.table import JobTable


class ReportReader:
    """Belongs to the event loop's thread."""

    def __init__(
        self,
        runner: Runner,
        outputs: OutputWriter,
        table: JobTable,
        models: Mapping[str, LoadedModel],
        metrics: WorkerMetrics,
        speed: MeasuredSpeed,
    ) -> None:
        self._runner = runner
        self._outputs = outputs
        self._table = table
        self._models = models
        self._metrics = metrics
        self._speed = speed

    def read(self, report: Stepped | SequenceRefused) -> None:
        if isinstance(report, Stepped):
            self._count_step(report)
            for event in report.events:
                self._on_event(event)
        elif (owner := self._table.owner(report.sequence_id)) is not None:
            self._table.leave(*owner)
            self._runner.fail(owner[0], report.error)

    def _count_step(self, report: Stepped) -> None:
        self._speed.count_step(report.seconds, report.load.slots)
        occupancy = report.load.slots / self._models[report.model].slots
        self._metrics.count_step(report.model, report.seconds, report.rows, occupancy)
        self._metrics.cache_bytes.labels(report.model).set(report.cache_bytes)
        self._metrics.count_query(report.model, report.load.positions, report.load.pads, report.load.prefilled)

    def _on_event(self, event: EngineEvent) -> None:
        owner = self._table.owner(event.sequence_id)
        if owner is None:
            return
        job, image = owner
        match event:
            case SequenceFinished(token_ids=token_ids):
                if job.videos:
                    job.videos[image].is_finished = True
                else:
                    job.pictures[image].finished = token_ids
                self._table.leave(job, image)
                if job.is_drawn:
                    self._outputs.complete(job)
            case SequenceAborted():
                self._table.leave(job, image)
            case PatchesDecoded() if job.ending is None:
                self._on_patches(job, image, event)
            case FrameMade() if job.ending is None:
                job.videos[image].frames.append(event.values)
                self._outputs.add_frame(job, image, event)
                self._note_first(job)
            case PatchesRevised() if job.ending is None:
                self._on_revised(job, image, event)
            case _:
                pass

    def _on_patches(self, job: RunningJob, image: int, event: PatchesDecoded) -> None:
        model, patches = job.claim.model, event.patches
        job.pictures[image].add(
            (patch.position for patch in patches),
            (patch.token_id for patch in patches),
            (patch.surprise for patch in patches if patch.surprise is not None),
        )
        layout = self._models[model].drawing.backbone.spec.layout
        self._runner.outbox.put(job, "patches", describe_patches(image, event, layout).body())
        partial_index = job.next_partial(image, event.step, event.steps)
        if partial_index is not None:
            job.pictures[image].num_partials += 1
            self._outputs.add_partial(job, image, partial_index)
        self._metrics.patches.labels(model).inc(len(patches))
        self._note_first(job)

    def _on_revised(self, job: RunningJob, image: int, event: PatchesRevised) -> None:
        job.pictures[image].redrawn |= {patch.position: patch.token_id for patch in event.patches}
        layout = self._models[job.claim.model].drawing.backbone.spec.layout
        revised = Revised(
            image=image, step=event.step, steps=event.steps, patches=_describe_each(event.patches, layout)
        )
        self._runner.outbox.put(job, revised.type, revised.body())

    def _note_first(self, job: RunningJob) -> None:
        """Something of the job can be seen from now on."""
        model = job.claim.model
        if not job.has_patches:
            job.has_patches = True
            job.first_patch_at = time.monotonic()
            self._metrics.prefill.labels(model).observe(self._speed.latest_seconds)
            self._metrics.first_patch.labels(model).observe(job.age)


def describe_patches(image: int, event: PatchesDecoded, layout: TokenLayout) -> Patches:
    """The event of one step of one image."""
    return Patches(
        image=image,
        step=event.step,
        steps=event.steps,
        patches=_describe_each(event.patches, layout),
        surprises=tuple(patch.surprise for patch in event.patches if patch.surprise is not None),
    )


def _describe_each(patches: Sequence[Patch], layout: TokenLayout) -> tuple[PatchInfo, ...]:
    infos: list[PatchInfo] = []
    for patch in patches:
        infos.append(
            PatchInfo(
                rank=patch.rank,
                position=patch.position,
                token=patch.token_id,
                confidence=round(patch.confidence, 4),
                **layout.address(patch.position),
            )
        )
    return tuple(infos)
