"""The thread that owns the engines: takes commands, steps whatever has work, reports. It never waits for Redis."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from oar_core.engine.engine import Engine
from oar_core.engine.events import EngineEvent
from oar_core.engine.stepper import Request
from oar_core.engine.threads import ThreadGuard
from oar_core.errors import RequestError
from oar_core.sampling.decode import StepLoad
from oar_core.sampling.expectation import Expectation


@dataclass(frozen=True)
class Add:
    model: str
    request: Request


@dataclass(frozen=True)
class Abort:
    model: str
    sequence_id: str


@dataclass(frozen=True)
class Expected:
    expectation: Expectation | None
    seconds: float


@dataclass(frozen=True)
class Expect:
    """Asks what the model expects where a picture has no token; answered between two steps."""

    model: str
    sequence_id: str
    answer: Future[Expected] = field(default_factory=Future[Expected], compare=False)


@dataclass(frozen=True)
class Stop:
    pass


Command = Add | Abort | Expect | Stop


@dataclass(frozen=True)
class Stepped:
    model: str
    events: tuple[EngineEvent, ...]
    seconds: float
    rows: int  # pictures and videos that shared the step
    load: StepLoad
    cache_bytes: int


@dataclass(frozen=True)
class SequenceRefused:
    """The engine cannot serve this sequence."""

    sequence_id: str
    error: RequestError


@dataclass(frozen=True)
class Crashed:
    """The model failed; nothing that this process holds can be trusted any more."""

    error: BaseException


Report = Stepped | SequenceRefused | Crashed


class EngineThread(threading.Thread):
    def __init__(
        self, engines: Mapping[str, Engine], report: Callable[[Report], None], guard: ThreadGuard | None = None
    ) -> None:
        """`report` is called on this thread. The guard bounds the threads that its kernels take."""
        super().__init__(name="engine", daemon=True)
        self._engines = engines
        self._report = report
        self._guard = guard
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def send(self, command: Command) -> None:
        self._commands.put(command)

    def run(self) -> None:
        try:
            while self._obey():
                if self._guard is not None:
                    self._guard.look()
                for name, engine in self._engines.items():
                    if engine.has_work:
                        self._step(name, engine)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the process has to hear of it
            self._report(Crashed(error))

    def _obey(self) -> bool:
        """Carries out what was sent; waits for a command when there is no other work. False after Stop."""
        is_idle = not any(engine.has_work for engine in self._engines.values())
        while is_idle or not self._commands.empty():
            command = self._commands.get()
            is_idle = False
            if isinstance(command, Stop):
                return False
            self._carry_out(command)
        return True

    def _carry_out(self, command: Add | Abort | Expect) -> None:
        engine = self._engines[command.model]
        if isinstance(command, Abort):
            engine.abort(command.sequence_id)
            return
        if isinstance(command, Expect):
            self._expect(command, engine)
            return
        try:
            engine.add(command.request)
        except RequestError as error:
            self._report(SequenceRefused(command.request.id, error))

    def _expect(self, command: Expect, engine: Engine) -> None:
        if not command.answer.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        start = time.perf_counter()
        expectation = engine.expect(command.sequence_id)
        command.answer.set_result(Expected(expectation, time.perf_counter() - start))

    def _step(self, name: str, engine: Engine) -> None:
        start = time.perf_counter()
        events = engine.step()
        seconds = time.perf_counter() - start
        self._report(Stepped(name, tuple(events), seconds, engine.num_stepped, engine.load, engine.cache_bytes))
