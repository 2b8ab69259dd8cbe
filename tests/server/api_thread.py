"""The API in a thread of this process, on a port of its own."""

import threading
import time

import uvicorn

from server.api.app import create_app
from server.api.http import server_config
from server.settings import Settings


class ApiThread:
    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        config = server_config(self.app, settings, {"port": 0, "log_level": "error", "lifespan": "on"})
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        host, port = self._server.servers[0].sockets[0].getsockname()
        return f"http://{host}:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
