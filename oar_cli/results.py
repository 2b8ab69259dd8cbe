"""`oar results`: finished pictures as files, from wherever a server keeps them; a folder and S3 need no server."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from oar_cli.answer import Answer, AnswerGroup
from oar_cli.failure import CommandFailed
from oar_cli.on_redis import on_redis
from oar_cli.settings_options import StartRefused, load_settings
from oar_wire.error import ServerError
from oar_wire.errors import ResultsUnavailable
from oar_wire.events import Completed
from oar_wire.outputs import OutputData, OutputLink
from server.api.pictures import Rendition, recipe_of, render
from server.jobs.connection import RedisConnection
from server.jobs.job import JobRecord, JobState
from server.jobs.queue import JobQueue
from server.jobs.store import PNG
from server.results.files import Files, StoreFault
from server.results.opening import open_files, results_folder
from server.results.redis_results import RedisResults
from server.results.store import ResultKey, ResultsRefused
from server.results.stored_results import MEDIA_TYPES, RECORD, TYPES, output_name, parse_record
from server.settings import Settings

INDEX = "results.jsonl"


@click.group("results", cls=AnswerGroup)
def results_group() -> None:
    """Export finished pictures."""


@results_group.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--tenant", help="Results of one tenant alone.")
def export(folder: Path, tenant: str | None) -> Answer:
    """Write pictures and videos to FOLDER, with a line for each job in FOLDER/results.jsonl.

    OAR_RESULTS says where they are; unset, the data folder is looked into, and then Redis. PNGs carry their recipe.
    What is there already is not written again.
    """
    settings = _settings()
    try:
        exporter = _Exporter(folder)
        files = open_files(settings)
        if files is None:
            on_redis(lambda connection, _: _export_redis(connection, settings, exporter, tenant))
        else:
            for job in _stored_jobs(files, tenant):
                exporter.add(job, (_read(files, job, link) for link in links_of(job)))
    except ResultsRefused as error:
        raise StartRefused(str(error)) from error
    except StoreFault as error:
        raise CommandFailed(ResultsUnavailable(str(error))) from error
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror}") from error
    document = {"jobs": exporter.num_jobs, "written": exporter.num_written, "folder": str(folder)}
    return Answer(document, [f"{exporter.num_written} files of {exporter.num_jobs} jobs written to {folder}"])


def _settings() -> Settings:
    """Those of `oar serve`, where OAR_RESULTS is unset and it has kept results here."""
    settings = load_settings({})
    if "results" not in settings.model_fields_set and results_folder(settings).is_dir():
        return settings.model_copy(update={"results": "folder"})
    return settings


@dataclass
class _Exporter:
    folder: Path
    num_jobs: int = 0
    num_written: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / INDEX).unlink(missing_ok=True)

    def add(self, job: JobRecord, outputs: Iterator[OutputData | None]) -> None:
        """Raises OSError."""
        names = [self._write(job, output) for output in outputs if output is not None]
        self.num_jobs += 1
        line = {
            "id": job.id,
            "tenant": job.tenant,
            "created_at": job.created_at,
            "finished_at": job.finished_at,
            "files": names,
            "params": job.params.model_dump(mode="json", exclude_none=True),
        }
        with (self.folder / INDEX).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _write(self, job: JobRecord, output: OutputData) -> str:
        """Returns its name in the folder."""
        name = f"{job.tenant}/{job.id}-{output.kind}-{output.index}.{TYPES[output.media_type]}"
        path = self.folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            is_image = output.kind == "image"
            data = render(output.data, Rendition(), recipe_of(job, output.index)) if is_image else output.data
            part = path.with_name(f".{path.name}.part")
            part.write_bytes(data)
            part.replace(path)
            self.num_written += 1
        return name


def links_of(job: JobRecord) -> list[OutputLink]:
    """All outputs of a completed job."""
    ending = Completed.model_validate_json(job.result)
    return list(ending.outputs) or [
        OutputLink(kind="image", index=image.index, media_type=PNG, url=image.url) for image in ending.images
    ]


def _stored_jobs(files: Files, tenant: str | None) -> Iterator[JobRecord]:
    for file in files.list(tenant or ""):
        owner, job_id, name = file.name.split("/")
        if name == RECORD and (data := files.read(file.name)) is not None:
            yield parse_record(owner, job_id, data)


def _read(files: Files, job: JobRecord, link: OutputLink) -> OutputData | None:
    data = files.read(output_name(ResultKey(job.tenant, job.id, job.epoch), link.kind, link.index))
    return None if data is None else OutputData(link.kind, link.index, MEDIA_TYPES[link.kind], data)


async def _export_redis(
    connection: RedisConnection, settings: Settings, exporter: _Exporter, tenant: str | None
) -> None:
    results = RedisResults(connection)
    async for job in _redis_jobs(JobQueue(connection, settings), tenant):
        outputs = [await results.read(job, link.kind, link.index) for link in links_of(job)]
        exporter.add(job, iter(outputs))


async def _redis_jobs(queue: JobQueue, tenant: str | None) -> AsyncIterator[JobRecord]:
    for job_id in await queue.ended():
        try:
            job = await queue.load(job_id)
        except ServerError:
            continue  # expired meanwhile
        if job.state is JobState.COMPLETED and tenant in (None, job.tenant):
            yield job
