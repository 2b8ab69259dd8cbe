"""What a tenant has used: its own, by days, counted when jobs end, at a bounded price."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.server.live import LiveServer
from tests.server.tenants import bearer, write_keys
from tests.waiting import wait_for


@pytest.mark.running
def test_pictures_steps_and_seconds_of_ones_own_jobs(tmp_path: Path, weights_dir: Path) -> None:
    keys = write_keys(tmp_path)
    with LiveServer(tmp_path, weights_dir, is_gated=True, OAR_API_KEYS=str(keys.path)) as server:

        def post(key: str, **body: Any) -> dict[str, Any]:
            asked = {"prompt": "a red circle", **body}
            headers = {**bearer(key), "Prefer": "wait=60"}
            return server.client.post("/v1/generations", json=asked, headers=headers).json()

        def used(key: str, days: int = 2) -> list[dict[str, Any]]:
            return server.client.get("/v1/usage", params={"days": days}, headers=bearer(key)).json()["data"]

        assert post(keys.one, n=3, steps=4, guidance=2.0)["status"] == "completed"
        assert post(keys.one, n=1, steps=2, guidance=1.0)["status"] == "completed"
        with server.held():
            body = {"prompt": "a red circle"}
            waiting = server.client.post("/v1/generations", json=body, headers=bearer(keys.one)).json()
            server.client.delete(f"/v1/generations/{waiting['id']}", headers=bearer(keys.one))
        today, before = wait_for(lambda: found if (found := used(keys.one))[0]["canceled"] else None)
        if today["completed"]:  # it is not midnight
            assert today["day"] == datetime.now(UTC).date().isoformat()
            assert (today["completed"], today["failed"], today["canceled"]) == (2, 0, 1)
            assert (today["pictures"], today["steps"]) == (4, 3 * 4 + 2)
            assert today["seconds"] > 0
            assert (before["completed"], before["pictures"]) == (0, 0)
            text = server.client.get("/metrics?all=1").text
            assert 'oar_tenant_usage{tenant="one",unit="pictures"} 4.0' in text
        assert used(keys.other)[0]["pictures"] == 0
        assert len(used(keys.one, days=31)) == 31
        answer = server.client.get("/v1/usage", params={"days": 32}, headers=bearer(keys.one))
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_days")
