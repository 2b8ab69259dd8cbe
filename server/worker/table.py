"""The jobs that a worker has, and the engine rows that they use."""

import asyncio
from collections import Counter
from collections.abc import Mapping

from server.observability.metrics import WorkerMetrics
from server.worker.models import LoadedModel
from server.worker.running import RunningJob


class JobTable:
    def __init__(self, models: Mapping[str, LoadedModel], metrics: WorkerMetrics) -> None:
        self._models = models
        self._metrics = metrics
        self._jobs: dict[str, RunningJob] = {}
        self._sequences: dict[str, tuple[RunningJob, int]] = {}  # in the engine
        self._rows: Counter[str] = Counter()  # engine rows in use, by model
        self._changed = asyncio.Event()
        self.has_jobs = asyncio.Event()

    @property
    def jobs(self) -> tuple[RunningJob, ...]:
        return tuple(self._jobs.values())

    def find(self, job_id: str) -> RunningJob | None:
        return self._jobs.get(job_id)

    def owner(self, sequence_id: str) -> tuple[RunningJob, int] | None:
        """The job and image of a sequence; None for those of a job that is gone, or was lost and taken again since."""
        return self._sequences.get(sequence_id)

    def has_free_rows(self, model: str) -> bool:
        return self._rows[model] < self._models[model].slots

    async def wait_for_change(self) -> None:
        """Waits until rows were taken or given back, or `wake` was called."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        self._changed.set()

    def add(self, job: RunningJob) -> None:
        if job.claim.job_id not in self._jobs:
            self._metrics.running.labels(job.claim.model).inc()
        self._jobs[job.claim.job_id] = job
        self.has_jobs.set()

    def remove(self, job: RunningJob) -> bool:
        """False where another claim of the job has taken its place."""
        is_current = self._jobs.get(job.claim.job_id) is job
        if is_current:
            del self._jobs[job.claim.job_id]
            self._metrics.running.labels(job.claim.model).dec()
            if not self._jobs:
                self.has_jobs.clear()
        for image in tuple(job.live):
            self.leave(job, image)
        return is_current

    def enter(self, job: RunningJob, image: int) -> None:
        """A sequence goes to the engine."""
        job.live.add(image)
        self._sequences[job.sequence_id(image)] = job, image
        self._use_rows(job, +1)

    def leave(self, job: RunningJob, image: int) -> None:
        """A sequence is out of the engine."""
        if image in job.live:
            job.live.remove(image)
            del self._sequences[job.sequence_id(image)]
            self._use_rows(job, -1)

    def _use_rows(self, job: RunningJob, images: int) -> None:
        self._rows[job.claim.model] += images * job.claim.params.rows_per_image
        # The last images of a job may wait in the engine for slots.
        used = min(self._rows[job.claim.model], self._models[job.claim.model].slots)
        self._metrics.rows_used.labels(job.claim.model).set(used)
        self._changed.set()
