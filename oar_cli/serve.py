"""`oar serve`: Redis, API and workers under one roof; one line with the URL when they are ready."""

import queue
import signal
import threading
import urllib.error
import urllib.request
from types import FrameType

import click

from oar_cli.inherit import listen
from oar_cli.settings_options import StartRefused, to_environment, with_settings
from oar_cli.supervisor import Child, ChildRefused, Supervisor
from server.jobs.check import RedisRefused, look_once
from server.jobs.embedded import EmbeddedRedisError, redis_url
from server.observability.logging import configure_logging
from server.results.opening import check_results
from server.results.store import ResultsRefused
from server.settings import Settings

TEND_SECONDS = 0.1
STOP_MARGIN = 5.0  # seconds beyond the workers' own drain
PROBE_SECONDS = 2.0
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@click.command()
@with_settings
def serve(settings: Settings) -> None:
    """Run everything: Redis (unless REDIS_URL names one), API and workers.

    Ctrl-C stops all of it; SIGUSR2 replaces API and workers one after another, while they serve.
    """
    configure_logging(settings.log_format, settings.log_level)
    # A Redis elsewhere may have other processes, which know nothing of a folder here.
    if "results" not in settings.model_fields_set and not settings.redis_url:
        settings = settings.model_copy(update={"results": "folder"})
    with listen(settings) as listener:
        try:
            check_results(settings)
            if settings.redis_url:
                look_once(settings.redis_url, settings.command_timeout)
            with redis_url(settings) as url:
                children = [Child("API", "api"), *(Child(f"worker {i}", "worker") for i in range(settings.workers))]
                environment = {**to_environment(settings), "REDIS_URL": url}
                supervisor = Supervisor(children, environment, listener.fileno())
                signals = _listen_to_signals(supervisor)
                try:
                    _tend(supervisor, signals, address(settings.host, listener.getsockname()[1]))
                finally:
                    supervisor.stop(settings.drain_seconds + STOP_MARGIN)
        except (ChildRefused, EmbeddedRedisError, RedisRefused, ResultsRefused) as error:
            raise StartRefused(str(error)) from error


def address(host: str, port: int) -> str:
    reachable = ANY_ADDRESS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _tend(supervisor: Supervisor, signals: "queue.SimpleQueue[int]", url: str) -> None:
    """Returns at the first signal to stop. Raises ChildRefused."""
    stop = threading.Event()
    threading.Thread(target=_announce, args=(url, stop), daemon=True).start()
    try:
        while True:
            supervisor.tend()
            try:
                if signals.get(timeout=TEND_SECONDS) != signal.SIGUSR2:
                    return
                supervisor.roll()
            except queue.Empty:
                continue
    finally:
        stop.set()


def _announce(url: str, stop: threading.Event) -> None:
    """Prints the one line. It asks this machine, whatever proxies the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while not stop.wait(TEND_SECONDS):
        try:
            with opener.open(f"{url}/ready", timeout=PROBE_SECONDS):
                break
        except (urllib.error.URLError, OSError):
            continue
    if not stop.is_set():
        click.echo(url)


def _listen_to_signals(supervisor: Supervisor) -> "queue.SimpleQueue[int]":
    """The first signal to stop stops in order, the second at once.

    A handler runs between any two instructions of the main thread. An Event's lock may be held there, and setting it
    would wait for ever; a SimpleQueue may be put to from anywhere.
    """
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    is_stopping = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopping
        if number != signal.SIGUSR2:
            if is_stopping:
                supervisor.kill()
            is_stopping = True
        signals.put(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, on_signal)
    return signals
