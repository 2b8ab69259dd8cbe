"""A Prometheus of one's own beside a running server, and its HTTP API."""

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from tests.ports import free_port

READY_SECONDS = 30.0
Series = dict[str, Any]


def find_prometheus() -> str | None:
    """Debian's package is `prometheus`."""
    return shutil.which("prometheus")


class Prometheus:
    """Scrapes each job's addresses every second and evaluates the rules."""

    def __init__(self, folder: Path, jobs: dict[str, Sequence[str]], rules: Path) -> None:
        self._folder = folder
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules.resolve())],
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": list(targets)}]} for name, targets in jobs.items()
            ],
        }
        self._config = folder / "prometheus.yml"
        self._config.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML

    def __enter__(self) -> Self:
        binary = find_prometheus()
        assert binary is not None, "prometheus is not installed"
        port = free_port()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)
        words = (f"--config.file={self._config}", f"--storage.tsdb.path={self._folder / 'data'}")
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [binary, *words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, (self._folder / "prometheus.log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "prometheus does not become ready"
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait()

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def query(self, expr: str) -> list[Series]:
        """The series as of now: `metric`, its labels, and `value`, a number. Raises ValueError for a bad query."""
        return [
            {"metric": series["metric"], "value": float(series["value"][1])}
            for series in self._ask("/api/v1/query", query=expr)["result"]
        ]

    def rules(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self._ask("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _ask(self, path: str, **params: str | float) -> dict[str, Any]:
        answer = self.client.get(path, params=params).json()
        if answer["status"] != "success":
            raise ValueError(f"{params.get('query', path)}: {answer['error']}")
        return answer["data"]
