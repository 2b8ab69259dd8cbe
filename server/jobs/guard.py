"""Runs Valkey for as long as somebody uses it: `python -m server.jobs.guard FOLDER SOCKET BINARY FSYNC`.

It starts Valkey again if that dies, and ends with it when no process holds `users.lock` any more. Only the standard
library is imported, so that it starts in a few milliseconds and stays small.
"""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "appendonly": "yes",
    "auto-aof-rewrite-min-size": "16mb",
    "save": "",
    "maxmemory-policy": "noeviction",
    # A job's hash is one piece of memory, and its two streams take no 4 KiB each, which is the least by default.
    "hash-max-listpack-value": "4096",
    "stream-node-max-bytes": "1024",
}
RESTART_SECONDS = 0.5
LEFTOVER_SECONDS = 5.0


def guard(folder: Path, socket_path: Path, binary: Path, fsync: str) -> None:
    if os.fork():
        os._exit(0)  # who started us goes on, and never has to wait for us
    _stop_leftover(socket_path)
    pid_file = folder / "guard.pid"
    pid_file.write_text(str(os.getpid()), encoding="utf-8")
    gone = threading.Event()
    threading.Thread(target=_wait_for_last_user, args=(folder / "users.lock", gone), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: gone.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while not gone.is_set():
            _run(folder, socket_path, binary, fsync, gone)
    finally:
        socket_path.unlink(missing_ok=True)
        pid_file.unlink(missing_ok=True)


def _stop_leftover(path: Path) -> None:
    """Two servers must never write one folder: a Valkey whose guard was killed ends before ours starts."""
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.settimeout(LEFTOVER_SECONDS)
        try:
            leftover.connect(str(path))
            leftover.sendall(b"SHUTDOWN\r\n")
            leftover.recv(1024)  # ends when the server has closed the connection
        except OSError:
            return  # nobody listens, or it went away while it was asked to


def _run(folder: Path, socket_path: Path, binary: Path, fsync: str, gone: threading.Event) -> None:
    """One life of Valkey."""
    options = [word for name, value in {**OPTIONS, "appendfsync": fsync}.items() for word in (f"--{name}", value)]
    paths = ["--dir", str(folder), "--unixsocket", str(socket_path)]
    command = [str(binary), *options, *paths]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent) as valkey:
        while not gone.wait(0.05):
            if valkey.poll() is not None:
                time.sleep(RESTART_SECONDS)
                return
        valkey.terminate()  # Valkey writes its append-only file out before it ends
        valkey.wait()


def _wait_for_last_user(path: Path, gone: threading.Event) -> None:
    """Keeps the lock until this process ends, so that a new user waits until Valkey has stopped."""
    users = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(users, fcntl.LOCK_EX)
    gone.set()


def _die_with_parent() -> None:
    """If even the guard is killed, the kernel tells Valkey to stop (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


if __name__ == "__main__":
    guard(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
