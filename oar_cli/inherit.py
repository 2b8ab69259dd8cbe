"""Resources that `oar serve` shares with its children: the listening socket, and a pipe that tells children of the
parent's end."""

import os
import socket
import threading

import click

from server.settings import Settings

LISTEN_FD = "OAR_INHERITED_SOCKET"
PARENT_FD = "OAR_INHERITED_PIPE"
READY_FD = "OAR_INHERITED_READY"
SPARE_SECONDS = 5.0
EXIT_CONFIG = 78  # sysexits.h: restarting does not help


def inherited_listener() -> socket.socket | None:
    number = os.environ.get(LISTEN_FD)
    return socket.socket(fileno=int(number)) if number else None


def listen(settings: Settings) -> socket.socket:
    """The API's listening socket. An address in use is a usage error, before anything is started."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        message = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        raise click.ClickException(f"{message} (set OAR_PORT or --port)") from error
    # Connections inherit both options. asyncio sets the first one only where a socket knows that it is TCP's, which
    # Python's do not: each answer would wait 40 ms for the client's acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Without it one whose client never reads stays half closed for ever.
        milliseconds = int(1000 * (2 * settings.socket_send_timeout + SPARE_SECONDS))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return listener


def tell_ready() -> None:
    """Tells the parent that this process serves."""
    inherited = os.environ.get(READY_FD)
    if inherited is not None:
        os.write(int(inherited), b"1")
        os.close(int(inherited))


def end_with_parent() -> None:
    """Watches the pipe whose other end only the supervisor holds. However that ends, so does this process."""
    inherited = os.environ.get(PARENT_FD)
    if inherited is None:
        return

    def watch() -> None:
        os.read(int(inherited), 1)
        os._exit(1)  # as after kill -9: jobs are safe in Redis

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
