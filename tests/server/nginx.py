"""Debian's nginx in front of a server, as an operator would set it up."""

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")

CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
  server {{
    listen 127.0.0.1:{port};
    location {location} {{
      proxy_pass {upstream};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      {headers}
    }}
  }}
}}
"""


class Nginx:
    """Serves `upstream` below `/oar/`. What it says of itself is up to `headers`."""

    def __init__(self, folder: Path, upstream: str, *headers: str, keeps_prefix: bool = False) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/oar"
        text = CONFIG.format(
            folder=folder,
            port=self.port,
            location="/oar" if keeps_prefix else "/oar/",
            upstream=upstream if keeps_prefix else f"{upstream}/",
            headers="\n".join(f"proxy_set_header {header};" for header in headers),
        )
        (folder / "nginx.conf").write_text(text, encoding="utf-8")

    def __enter__(self) -> Self:
        assert NGINX is not None
        self._process = subprocess.Popen(
            [NGINX, "-p", self.folder, "-e", self.folder / "error.log", "-c", self.folder / "nginx.conf"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except ConnectionRefusedError:
                assert self._process.poll() is None, (self.folder / "error.log").read_text(encoding="utf-8")
                time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
