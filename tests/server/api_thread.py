"""The API in a thread of this process, on a port of its own, with the protocols of `oar api`.

What the kernel keeps for a client that does not read is the same on every machine: the listener bounds it.
"""

import socket
import threading
import time

import uvicorn

from server.api.app import create_app
from server.api.http import server_config
from server.settings import Settings

SEND_BUFFER = 1 << 20


class ApiThread:
    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._server = uvicorn.Server(server_config(self.app, settings, {"log_level": "error", "lifespan": "on"}))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
