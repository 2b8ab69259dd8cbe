"""`oar top`: queue, workers and latencies of a server as of now, from its `/metrics` and `/v1/models`."""

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import click
import httpx
from prometheus_client.parser import text_string_to_metric_families

from oar_cli.answer import Answer, AnswerCommand
from oar_cli.failure import CommandFailed
from oar_cli.serve import address
from oar_cli.settings_options import load_settings
from oar_client import ConnectionFailed, OarError
from oar_client.contact import proxies_explained
from oar_client.errors import error_object, refusal
from oar_wire.errors import InvalidKey
from oar_wire.loopback import is_loopback_url

TIMEOUT = 10.0
HOME, CLEAR_LINE, CLEAR_BELOW, BOLD, PLAIN = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[1m", "\x1b[0m"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
BAR = 12


@dataclass(frozen=True)
class ModelRow:
    name: str
    workers: int
    waiting: int
    running: int
    oldest_age: float  # seconds
    slots_used: int
    slots: int
    patches_per_second: float | None  # None before there are two looks
    images_per_second: float | None
    first_patch: float | None  # seconds, median since the look before, or of all where there is none
    e2e: float | None
    padding: float | None  # share


@dataclass(frozen=True)
class WorkerRow:
    name: str
    running: int
    slots_used: int
    slots: int
    steps_per_second: float | None
    patches_per_second: float | None
    step_seconds: float | None  # median


@dataclass(frozen=True)
class ServerSnapshot:
    url: str
    at: float  # Unix seconds
    accepted: int
    rejected: int
    websockets: int
    models: tuple[ModelRow, ...]
    workers: tuple[WorkerRow, ...]


class Look:
    """One reading of all samples."""

    def __init__(self, text: str, models: Iterable[str], at: float) -> None:
        self.at = at
        self.models = tuple(models)
        self._samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        return sum(value for _, value in self._found(name, labels))

    def workers(self) -> list[str]:
        return sorted({labels["worker"] for labels, _ in self._found("oar_cache_slots", {}) if "worker" in labels})

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """Cumulative counts by upper bound."""
        counts: dict[float, float] = {}
        for found, value in self._found(f"{name}_bucket", labels):
            bound = float(found["le"])
            counts[bound] = counts.get(bound, 0.0) + value
        return counts

    def _found(self, name: str, labels: Mapping[str, str]) -> list[tuple[dict[str, str], float]]:
        requested = labels.items()
        return [(found, value) for known, found, value in self._samples if known == name and requested <= found.items()]


def median(counts: Mapping[float, float]) -> float | None:
    """The median of a histogram's cumulative counts, laid evenly over its buckets as Prometheus does; None if it is
    empty."""
    bounds = sorted(counts)
    total = counts[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    below, lower = 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= total / 2:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (total / 2 - below) / (counts[bound] - below)
        below, lower = counts[bound], bound
    return None


def summarise(url: str, now: Look, before: Look | None) -> ServerSnapshot:
    return ServerSnapshot(
        url=url,
        at=round(now.at, 3),
        accepted=int(now.total("oar_requests_total", outcome="accepted")),
        rejected=int(now.total("oar_requests_total", outcome="rejected")),
        websockets=int(now.total("oar_ws_connections")),
        models=tuple(_model(name, now, before) for name in now.models),
        workers=tuple(_worker(name, now, before) for name in now.workers()),
    )


def _model(name: str, now: Look, before: Look | None) -> ModelRow:
    depth, waiting = (int(now.total(f"oar_queue_{what}", model=name)) for what in ("depth", "waiting"))
    queried = _since(now, before, "oar_positions_queried_total", model=name)
    return ModelRow(
        name=name,
        workers=int(now.total("oar_workers", model=name)),
        waiting=waiting,
        running=depth - waiting,
        oldest_age=round(now.total("oar_queue_oldest_age_seconds", model=name), 3),
        slots_used=int(now.total("oar_cache_slots_used", model=name)),
        slots=int(now.total("oar_cache_slots", model=name)),
        patches_per_second=_rate(now, before, "oar_patches_generated_total", model=name),
        images_per_second=_rate(now, before, "oar_images_generated_total", model=name),
        first_patch=_median(now, before, "oar_time_to_first_patch_seconds", model=name),
        e2e=_median(now, before, "oar_e2e_request_latency_seconds", model=name),
        padding=round(_since(now, before, "oar_positions_padded_total", model=name) / queried, 4) if queried else None,
    )


def _worker(name: str, now: Look, before: Look | None) -> WorkerRow:
    return WorkerRow(
        name=name,
        running=int(now.total("oar_jobs_running", worker=name)),
        slots_used=int(now.total("oar_cache_slots_used", worker=name)),
        slots=int(now.total("oar_cache_slots", worker=name)),
        steps_per_second=_rate(now, before, "oar_steps_total", worker=name),
        patches_per_second=_rate(now, before, "oar_patches_generated_total", worker=name),
        step_seconds=_median(now, before, "oar_inter_step_latency_seconds", worker=name),
    )


def _since(now: Look, before: Look | None, name: str, **labels: str) -> float:
    """Counts what was added since the look before; a restarted counter counts from 0."""
    total, earlier = now.total(name, **labels), before.total(name, **labels) if before else 0.0
    return total - earlier if total >= earlier else total


def _rate(now: Look, before: Look | None, name: str, **labels: str) -> float | None:
    if before is None or now.at <= before.at:
        return None
    return round(_since(now, before, name, **labels) / (now.at - before.at), 2)


def _median(now: Look, before: Look | None, name: str, **labels: str) -> float | None:
    counts = now.buckets(name, **labels)
    earlier = before.buckets(name, **labels) if before else {}
    recent = {bound: count - earlier.get(bound, 0.0) for bound, count in counts.items()}
    seconds = median(recent if min(recent.values(), default=0.0) >= 0 else counts)
    return None if seconds is None else round(seconds, 5)


# the command


class _TopCommand(AnswerCommand):
    """Its screen goes to the terminal as it is drawn; `--json` asks for one look, as `--once` does."""

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.params["once"] or ctx.params["as_json"]:
            ctx.params["once"] = True
            return super().invoke(ctx)
        del ctx.params["as_json"]
        return click.Command.invoke(self, ctx)


@click.command(cls=_TopCommand)
@click.option(
    "--url", envvar="OAR_URL", show_envvar=True, help="The server; the one that OAR_HOST and OAR_PORT name if absent."
)
@click.option("--api-key", envvar="OAR_API_KEY", help="Your key, where the server asks for one. [env: OAR_API_KEY]")
@click.option("--metrics-key", envvar="OAR_METRICS_KEY", help="The key of its /metrics. [env: OAR_METRICS_KEY]")
@click.option("--interval", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds of a look.")
@click.option("--once", is_flag=True, help="Print one snapshot, measured over one interval, and end; so does --json.")
def top(url: str | None, api_key: str | None, metrics_key: str | None, interval: float, once: bool) -> Answer | None:
    """Watch queue and workers in the terminal; Ctrl-C ends it."""
    if url is None:
        settings = load_settings({})
        url = address(settings.host, settings.port)
    with _client(url, api_key) as client:
        try:
            if once:
                before = read_look(client, metrics_key)
                time.sleep(interval)
                snapshot = summarise(url, read_look(client, metrics_key), before)
                return Answer(asdict(snapshot), screen_lines(snapshot, shutil.get_terminal_size().columns))
            _watch(lambda: read_look(client, metrics_key), url, interval)
        except httpx.HTTPStatusError as error:
            raise CommandFailed(_refused(error.response)) from error
        except httpx.HTTPError as error:
            raise CommandFailed(ConnectionFailed(f"{url}: {error}")) from error


def _client(url: str, api_key: str | None) -> httpx.Client:
    """Raises click.ClickException for an address or a proxy that cannot be used."""
    direct = httpx.HTTPTransport() if is_loopback_url(url) else None
    try:
        with proxies_explained(ValueError):
            return httpx.Client(base_url=url, timeout=TIMEOUT, headers=_bearer(api_key), transport=direct)
    except OarError as error:
        raise CommandFailed(error) from error


def _refused(answer: httpx.Response) -> OarError:
    """The error that the server answered, and the key that it asks for."""
    message = f"{answer.url} answered {answer.status_code}"
    if answer.status_code == InvalidKey.status:
        name = "OAR_METRICS_KEY" if answer.url.path == "/metrics" else "OAR_API_KEY"
        message = f"{answer.url} wants a key: set {name}"
    return refusal(answer.status_code, {**error_object(answer.text), "message": message})


def _bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def read_look(client: httpx.Client, metrics_key: str | None = None) -> Look:
    text = client.get("/metrics?all=1", headers=_bearer(metrics_key)).raise_for_status().text
    models: list[dict[str, Any]] = client.get("/v1/models").raise_for_status().json()["data"]
    return Look(text, [model["id"] for model in models], time.time())


def _watch(read: Callable[[], Look], url: str, interval: float) -> None:
    before: Look | None = None
    click.echo(ENTER, nl=False)
    try:
        while True:
            now = read()
            lines = screen_lines(summarise(url, now, before), shutil.get_terminal_size().columns)
            screen = "".join(f"{line}{CLEAR_LINE}\n" for line in lines)
            click.echo(f"{HOME}{screen}{CLEAR_BELOW}", nl=False)
            before = now
            time.sleep(interval)
    except KeyboardInterrupt:
        return
    finally:
        click.echo(LEAVE, nl=False)


def screen_lines(snapshot: ServerSnapshot, width: int) -> list[str]:
    """The screen's lines, none wider than `width` columns."""
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.at))
    head = f"oar top  {snapshot.url}  {clock}"
    totals = f"accepted {snapshot.accepted}  rejected {snapshot.rejected}  websockets {snapshot.websockets}"
    models = [("MODEL", "WAIT", "RUN", "OLDEST", "SLOTS", "", "PATCHES/S", "PICTURES/S", "FIRST", "E2E", "PADS")]
    models += [
        (row.name, str(row.waiting), str(row.running), _seconds(row.oldest_age), *_slots(row.slots_used, row.slots),
         _number(row.patches_per_second), _number(row.images_per_second), _seconds(row.first_patch), _seconds(row.e2e),
         "-" if row.padding is None else f"{row.padding:.0%}")
        for row in snapshot.models
    ]  # fmt: skip
    workers = [("WORKER", "RUN", "SLOTS", "", "STEPS/S", "PATCHES/S", "STEP")]
    workers += [
        (row.name, str(row.running), *_slots(row.slots_used, row.slots), _number(row.steps_per_second),
         _number(row.patches_per_second), _seconds(row.step_seconds))
        for row in snapshot.workers
    ]  # fmt: skip
    empty = ["no worker is alive"] if not snapshot.workers else []
    plain = [head, totals, "", *_table(models), "", *_table(workers), *empty]
    titles = {0, 3, 3 + len(models) + 1}
    return [f"{BOLD}{line[:width]}{PLAIN}" if index in titles else line[:width] for index, line in enumerate(plain)]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(size) if column else cell.ljust(size) for column, (cell, size) in enumerate(zip(row, widths))
        )
        for row in rows
    ]


def _slots(used: int, total: int) -> tuple[str, str]:
    full = round(BAR * used / total) if total else 0
    return f"{used}/{total}", "█" * full + "░" * (BAR - full)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
