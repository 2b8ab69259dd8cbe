"""The API in a thread of this process, on a port of its own, with the protocols of `oar api`."""

import threading
import time

import uvicorn

from server.api.app import create_app
from server.api.protocol import HttpProtocol, SocketProtocol
from server.settings import Settings


class ApiThread:
    def __init__(self, settings: Settings) -> None:
        config = uvicorn.Config(
            create_app(settings),
            http=HttpProtocol,
            ws=SocketProtocol,
            proxy_headers=False,
            port=0,
            log_level="error",
            lifespan="on",
        )
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
