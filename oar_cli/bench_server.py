"""`oar bench`: the library's benchmarks, and that of a whole server."""

import asyncio
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from oar_cli.answer import Answer
from oar_cli.bench import bench, bench_model_options, load_subject, tell
from oar_cli.failure import CommandFailed
from oar_client import Client, OarError
from oar_lab.bench.clock import Clock
from oar_lab.bench.server.backlog import BacklogReport, measure_backlog
from oar_lab.bench.server.engine_alone import measure_engine
from oar_lab.bench.server.load import Load
from oar_lab.bench.server.own_server import ServerFailed, own_server
from oar_lab.bench.server.queue_depth import measure_queue
from oar_lab.bench.server.serving import CpuSeconds, ServingReport, measure_serving
from oar_lab.bench.server.traffic import wishes
from oar_lab.bench.subject import Subject
from server.jobs.embedded import EmbeddedRedis

BOUND = 5  # times the latency of one picture alone
QUEUE_DEPTH = 1_000_000  # of a server of our own: it is to be filled, not to refuse


_depths = click.option(
    "--waiting",
    "depths",
    type=click.IntRange(min=0),
    multiple=True,
    default=(10, 1000, 10_000),
    show_default=True,
    help="Jobs; may be repeated.",
)


@bench.command("serving")
@click.option("--url", default="", help="A running server with the same model; default: one of our own.")
@click.option("--api-key", envvar="OAR_API_KEY", default=None, help="Of that server.")
@bench_model_options
@click.option("--slots", default=64, show_default=True, help="Cache slots; a guided picture takes two.")
@click.option(
    "--rate",
    "rates",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    default=(1.0, float("inf")),
    show_default=True,
    help="Requests a second, by Poisson; inf is all at once. May be repeated.",
)
@click.option("--requests", "count", type=click.IntRange(min=1), default=96, show_default=True, help="At each rate.")
@click.option("--concurrency", type=click.IntRange(min=1), default=None, help="Most under way; default: no limit.")
@click.option("--steps", type=int, multiple=True, default=(8, 16, 32), show_default=True, help="May be repeated.")
@click.option(
    "--order",
    "orders",
    multiple=True,
    default=("random", "halton", "raster"),
    show_default=True,
    help="May be repeated.",
)
@click.option("--previews/--no-previews", default=True, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--bound",
    default=None,
    type=float,
    help=f"Seconds within which a picture is good; default: {BOUND} times that of one alone.",
)
def bench_serving(
    url: str,
    api_key: str | None,
    weights: Path,
    model: str | None,
    device: str | None,
    dtype: str,
    threads: int,
    slots: int,
    rates: tuple[float, ...],
    count: int,
    concurrency: int | None,
    steps: tuple[int, ...],
    orders: tuple[str, ...],
    previews: bool,
    seed: int,
    bound: float | None,
) -> Answer:
    """A server under load, by HTTP and websockets, against the engine alone, which is measured before and after."""
    subject = load_subject(weights, model, None, device, dtype, threads)
    settings = _settings(subject, weights, dtype, threads, slots)
    try:
        with _server(url, settings) as (address, cpu_seconds):
            with Client(address, api_key=api_key) as client:
                prompts = client.model(subject.name).example_prompts
            requested = wishes(count, subject.name, prompts, steps, orders, previews=previews, seed=seed)
            engine = measure_engine(subject, requested, slots)
            bound = bound or BOUND * engine.picture_seconds
            load = Load(address, api_key, requested, concurrency)
            rows = measure_serving(load, rates, bound=bound, cpu_seconds=cpu_seconds, seed=seed)
            engine = engine.mean(measure_engine(subject, requested, slots))
    except (ServerFailed, OarError) as error:
        raise CommandFailed(error) from error
    setting = Clock(subject.device).setting(subject.dtype)
    return tell(
        ServingReport(subject.name, url, count, concurrency, steps, orders, slots, bound, engine, rows, setting)
    )


@bench.command("queue")
@_depths
def bench_queue(depths: tuple[int, ...]) -> Answer:
    """Measure what the job queue costs Redis while jobs wait, in a Valkey of its own."""
    with tempfile.TemporaryDirectory() as folder:
        redis = EmbeddedRedis(Path(folder))
        redis.start()
        try:
            return tell(asyncio.run(measure_queue(redis.url, Path(folder), sorted(depths))))
        finally:
            redis.stop()


@bench.command()
@bench_model_options
@click.option("--slots", default=16, show_default=True, help="Cache slots; a guided picture takes two.")
@_depths
@click.option("--steps", default=16, show_default=True, help="Of each picture.")
@click.option("--seconds", default=20.0, show_default=True, help="At each depth.")
def backlog(
    weights: Path,
    model: str | None,
    device: str | None,
    dtype: str,
    threads: int,
    slots: int,
    depths: tuple[int, ...],
    steps: int,
    seconds: float,
) -> Answer:
    """Pictures a second of a whole server while few or many jobs wait."""
    subject = load_subject(weights, model, None, device, dtype, threads)
    settings = _settings(subject, weights, dtype, threads, slots)
    try:
        with own_server(settings) as server:
            rows = asyncio.run(
                measure_backlog(
                    *server, model=subject.name, depths=sorted(depths), steps=steps, slots=slots, seconds=seconds
                )
            )
    except (ServerFailed, OarError) as error:
        raise CommandFailed(error) from error
    setting = Clock(subject.device).setting(subject.dtype)
    return tell(BacklogReport(subject.name, steps, slots, seconds, rows, setting))


def _settings(subject: Subject, weights: Path, dtype: str, threads: int, slots: int) -> dict[str, str]:
    """Settings of a server of our own with this model."""
    return {
        "OAR_WEIGHTS_DIR": str(weights.resolve()),
        "OAR_MODELS": subject.name,
        "OAR_DEVICE": str(subject.device),
        "OAR_DTYPE": dtype,
        "OAR_THREADS": str(threads),
        "OAR_SLOTS": str(slots),
        "OAR_QUEUE_DEPTH": str(QUEUE_DEPTH),
    }


@contextmanager
def _server(url: str, settings: Mapping[str, str]) -> Generator[tuple[str, CpuSeconds]]:
    """Its address, and what tells the CPU time of its processes, where they are ours."""
    if url:
        yield url, dict
        return
    with own_server(settings) as server:
        yield server.url, server.processes.cpu_seconds
