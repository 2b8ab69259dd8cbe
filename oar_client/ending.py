"""End of a job, as an exception where it has no pictures."""

from oar_client.errors import JobCanceled, JobFailed, TimedOut
from oar_wire.job import GenerationStatus


def check_completed(status: GenerationStatus) -> None:
    """Raises JobFailed, JobCanceled, or TimedOut for a job that has not ended."""
    match status.status:
        case "completed":
            return
        case "failed":
            error = status.error
            message = error.message if error else "the job failed"
            code, field = (error.code, error.field) if error else (None, None)
            raise JobFailed(message, job_id=status.id, code=code, field=field)
        case "canceled":
            raise JobCanceled("the job was canceled", job_id=status.id)
        case _:
            raise TimedOut(f"the job is {status.status}")
