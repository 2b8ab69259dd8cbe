"""Jobs that the old version queued, completed by the new one on the same data folder.

The old server first makes pictures of the requests. Then its worker is killed in the middle of a long job, the requests
are sent again, and the server ends with all of them in its queue. The new server starts on that folder. Both pass
pictures through the network one by one (OAR_DETERMINISTIC), so that company in a batch changes no bit.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ops.versions.part import Part, part_table
from ops.versions.pictures import shipped
from ops.versions.requests import SentRequest, requests_of
from ops.versions.server import Server
from ops.versions.tree import Tree

COUNT = 10  # of each model
ONE_BY_ONE = {"OAR_DETERMINISTIC": "true", "OAR_LEASE_SECONDS": "2"}
LONG = 16  # pictures of the job that is interrupted


def compare_queued(old: Tree, new: Tree, models: Sequence[str] = (), count: int = COUNT) -> Part:
    """`count` jobs of each model, and one that is interrupted."""
    settings = ONE_BY_ONE | {"OAR_MODELS": ",".join(models or shipped(old))}
    with tempfile.TemporaryDirectory() as name:
        with Server(old, Path(name), **settings) as server:
            requests = [request for model in server.models() for request in requests_of(model, count)]
            interrupted = _long(server.models()[0])
            expected = [_pngs(server, server.submit(one.path, one.body)) for one in (*requests, interrupted)]
            began = _begin(server, interrupted)
            server.kill_worker()
            waiting = [server.submit(one.path, one.body) for one in requests]
            states = [server.status(job_id)["status"] for job_id in waiting]
            server.kill()
        with Server(new, Path(name), **settings) as server:
            rows = [
                (job_id, one.name, one.kind, state, "queued", *_end(server, job_id, pngs))
                for job_id, one, state, pngs in zip(waiting, requests, states, expected)
            ]
            resumed = _resumed(server, began)
            rows.append(
                (began, "interrupted", interrupted.kind, "running", resumed, *_end(server, began, expected[-1]))
            )
    return queued_part(rows)


def queued_part(rows: list[tuple[str, ...]]) -> Part:
    num_completed, num_equal = (sum(row[at] == word for row in rows) for at, word in ((5, "completed"), (6, "equal")))
    num_queued = sum(row[3] == "queued" for row in rows)
    header = ("job", "request", "what it asks for", "when the old server died", "how it went on", "end", "PNG")
    said = f"{num_queued} jobs queued and one running in the old version: {num_completed} completed by the new one, "
    lines = [*part_table(header, rows), "", f"{said}{num_equal} with the old one's PNGs, byte for byte"]
    facts = {"jobs": len(rows), "queued": num_queued, "completed": num_completed, "equal": num_equal}
    return Part("Queued jobs", num_completed == num_equal == len(rows), lines, facts)


def _long(model: dict[str, Any]) -> SentRequest:
    """Many pictures, one position a step."""
    request = requests_of(model, 2)[1]
    return SentRequest("interrupted", request.path, request.body | {"n": LONG, "steps": model["num_tokens"]})


def _begin(server: Server, request: SentRequest) -> str:
    """Returns when some patches of the new job were sent."""
    job_id = server.submit(request.path, request.body)
    with server.client.stream("GET", f"/v1/generations/{job_id}/events", params={"after": 0}) as lines:
        next(line for line in lines.iter_lines() if line.startswith("data:") and '"patches"' in line)
    return job_id


def _pngs(server: Server, job_id: str) -> list[bytes]:
    return [picture.png for picture in server.pictures(job_id)]


def _end(server: Server, job_id: str, expected: list[bytes]) -> tuple[str, str]:
    """Waits for the end of a job."""
    server.events(job_id)
    state = server.status(job_id)["status"]
    if state != "completed":
        return state, "none"
    return state, "equal" if _pngs(server, job_id) == expected else "DIFFERS"


def _resumed(server: Server, job_id: str) -> str:
    """Says how the new version went on with the job that was interrupted."""
    found = next((event for event in server.events(job_id) if event["type"] == "restarted"), None)
    if found is None:
        return "ended before"
    known = sum(found["known"])
    return f"from {known} known tokens" if known else f"from the start ({found.get('reason')})"
