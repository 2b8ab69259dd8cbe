"""A job as clients see it."""

from oar_wire.events import Completed, Failed
from oar_wire.job import GenerationStatus, ImageLink, Timings
from oar_wire.outputs import OutputLink
from server.jobs.estimate import Fleet, eta
from server.jobs.job import JobRecord, JobState
from server.jobs.job_reader import Place
from server.jobs.store import PNG


def status_of(
    job: JobRecord, root_path: str, place: Place | None = None, fleet: Fleet | None = None
) -> GenerationStatus:
    url = f"{root_path}/v1/generations/{job.id}"
    return GenerationStatus(
        id=job.id,
        status=job.state.value,
        seed=job.params.seed,
        params=job.params,
        seq=job.seq,
        attempts=job.attempts,
        cancel_requested=job.cancel_requested,
        position=None if place is None else place.waiting_ahead,
        eta=None if place is None or fleet is None else _eta(place, fleet),
        workers=None if fleet is None else len(fleet.workers),
        notice=None if fleet is None or fleet.workers else _no_worker(job),
        warnings=job.warnings,
        timings=Timings(created_at=job.created_at, started_at=job.started_at, finished_at=job.finished_at),
        images=_images(job, root_path),
        outputs=_outputs(job, root_path),
        retry_of=job.retry_of,
        error=Failed.model_validate_json(job.result).error if job.state is JobState.FAILED else None,
        url=url,
        stream_url=f"{url}/stream",
        events_url=f"{url}/events",
    )


def _no_worker(job: JobRecord) -> str:
    return f"no worker serves the model {job.params.model!r} now; the job goes on when one does"


def _eta(place: Place, fleet: Fleet) -> float | None:
    params = place.job.params
    rows = params.n * params.rows_per_image
    seconds = eta(place.work_ahead, place.own_work, rows, fleet, params.n)
    return None if seconds is None else round(seconds, 3)


def _images(job: JobRecord, root_path: str) -> tuple[ImageLink, ...]:
    links = Completed.model_validate_json(job.result).images if job.state is JobState.COMPLETED else ()
    return tuple(link.model_copy(update={"url": root_path + link.url}) for link in links)


def _outputs(job: JobRecord, root_path: str) -> tuple[OutputLink, ...]:
    """Links of all outputs, also where the worker named images alone."""
    if job.state is not JobState.COMPLETED:
        return ()
    ending = Completed.model_validate_json(job.result)
    links = ending.outputs or tuple(
        OutputLink(kind="image", index=image.index, media_type=PNG, url=image.url) for image in ending.images
    )
    return tuple(link.model_copy(update={"url": root_path + link.url}) for link in links)
