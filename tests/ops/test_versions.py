"""The comparison of two versions: this one with itself agrees, and what differs is told."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from ops.versions import queued
from ops.versions.__main__ import compare_versions
from ops.versions.openapi import Difference, compare_openapi, differences, is_named, list_differences
from ops.versions.pictures import compare_pictures, pictures_part
from ops.versions.queued import compare_queued
from ops.versions.requests import ORDERS, SentRequest, requests_of
from ops.versions.server import ServedPicture
from ops.versions.throughput import compare_throughput, ratio
from ops.versions.tree import ROOT, Tree, checked_out
from tests.server.tiny import NAME, NUM_TOKENS, PROMPTS, write_tiny_weights

CARD = {
    "id": NAME,
    "example_prompts": PROMPTS,
    "num_tokens": NUM_TOKENS,
    "image_size": (16, 20),
    "orders": [order for order in ORDERS if order not in {"distilled", "shortlist"}],
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, Tree]:
    """This version twice, with a tiny model."""
    weights = tmp_path_factory.mktemp("weights")
    write_tiny_weights(weights)
    return Tree("old", ROOT, weights), Tree("new", ROOT, weights)


# this version with itself


@pytest.mark.slow
def test_pictures_of_one_version_are_equal(trees: tuple[Tree, Tree]) -> None:
    part = compare_pictures(*trees, count=7)  # one of them an edit
    assert part.is_good
    assert part.facts == {"pictures": 7, "equal": 7, "differ": []}
    assert f"{NAME}/6" in "\n".join(part.lines)


@pytest.mark.slow
def test_jobs_that_were_queued_are_completed(trees: tuple[Tree, Tree], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued, "LONG", 4)
    part = compare_queued(*trees, count=2)
    assert part.is_good, part.lines
    assert part.facts == {"jobs": 3, "queued": 2, "completed": 3, "equal": 3}


@pytest.mark.slow
def test_pairs_of_benchmarks_end_in_a_ratio_and_its_interval(trees: tuple[Tree, Tree]) -> None:
    part = compare_throughput(*trees, num_pairs=2, repeats={1: 1})
    found = part.facts["whole 1"]
    assert len(found["seconds"]) == part.facts["pairs"] == 2
    assert found["interval"][0] <= found["ratio"] <= found["interval"][1]
    assert part.lines[2].startswith("| 1 ")


@pytest.mark.slow
def test_the_document_of_one_version_does_not_differ(trees: tuple[Tree, Tree]) -> None:
    part = compare_openapi(*trees)
    assert (part.facts["came"], part.facts["went"], part.facts["changed"]) == (0, 0, 0)


@pytest.fixture
def head() -> Iterator[Tree]:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    with checked_out("HEAD") as tree:
        yield tree


def test_a_version_is_run_from_its_own_files(head: Tree) -> None:
    assert head.folder != ROOT
    assert (head.folder / "pyproject.toml").exists()
    assert head.environment()["PYTHONPATH"] == str(head.folder)
    assert head.weights == head.folder / "weights"


def test_a_version_inherits_no_settings(trees: tuple[Tree, Tree], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAR_SLOTS", "2")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    assert not trees[0].environment().keys() & {"OAR_SLOTS", "REDIS_URL"}


# what differs


def picture(token: int, colour: int) -> ServedPicture:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (colour, 0, 0)).save(buffer, "PNG")
    return ServedPicture(((0, token),), buffer.getvalue())


def test_pictures_that_differ_are_named() -> None:
    requests = [SentRequest(name, "/v1/generations", requests_of(CARD, 1)[0].body) for name in ("a", "b", "c")]
    before = {"a": picture(1, 1), "b": picture(1, 1), "c": picture(1, 1)}
    part = pictures_part(requests, before, {"a": picture(1, 1), "b": picture(2, 1), "c": picture(1, 2)})
    assert not part.is_good
    assert part.facts["differ"] == ["b", "c"]
    told = [[cell.strip() for cell in line.split("|")[3:6]] for line in part.lines[2:5]]
    assert told == [["equal"] * 3, ["DIFFER", "equal", "equal"], ["equal", "DIFFER", "DIFFER"]]


def test_a_job_that_was_lost_or_differs_is_no_success() -> None:
    row = ("gen-1", "tiny/0", "raster", "queued", "queued")
    assert queued.queued_part([(*row, "completed", "equal")]).is_good
    assert not queued.queued_part([(*row, "completed", "DIFFERS")]).is_good
    assert not queued.queued_part([(*row, "failed", "none")]).is_good


def test_the_ratio_is_that_of_pairs() -> None:
    found = ratio([(1.0, 1.1), (10.0, 11.0), (2.0, 2.2)])
    assert found.value == pytest.approx(1.1)
    assert found.low == pytest.approx(found.high)
    wide = ratio([(1.0, 0.5), (1.0, 2.0), (1.0, 1.0)])
    assert wide.value == pytest.approx(1)
    assert wide.low < 1 < wide.high


def test_differences_of_documents_are_told_once_for_all_places() -> None:
    def document(**fields: object) -> dict[str, object]:
        schema = {"type": "object", "description": "anything", "properties": {"seed": {"type": "integer"}, **fields}}
        return {"info": {"version": "1"}, "components": {"schemas": {"A": schema, "B": schema}}}

    added = list(differences(document(), document(revise={"type": "integer", "title": "Revise", "maximum": 3})))
    assert list_differences(added) == ['+ A, B . revise: {"type": "integer", "maximum": 3}']
    nullable = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    changed = list(differences(document(top={"type": "string"}), document(top=nullable)))
    assert list_differences(changed) == ["+ A, B . top null: true", "~ A, B . top type: string -> integer"]
    assert list(differences(document(), document() | {"info": {"version": "2"}})) == []


def test_a_difference_is_looked_up_by_its_own_name() -> None:
    path = ("components", "schemas", "A", "properties", "group_sizes", "anyOf")
    assert is_named(Difference("+", path, ""), "- `group_sizes` takes a list")
    assert not is_named(Difference("+", path, ""), "- `my_group_sizes`, A, anyOf")


def test_requests_are_of_all_kinds() -> None:
    requests = requests_of(CARD)
    orders = [one.body["order"] for one in requests]
    assert len(requests) == 20
    assert {str(order) for order in orders} >= set(CARD["orders"])
    assert sum(isinstance(order, list) and sorted(order) == list(range(NUM_TOKENS)) for order in orders) == 4
    assert {one.body["group_sizes"] for one in requests} == {"cosine", "linear", "constant", "adaptive"}
    edits = [one.body for one in requests if one.path == "/v1/edits"]
    assert [sorted(body.keys() & {"mask", "strength", "offset", "feather"}) for body in edits] == [
        ["mask"],
        ["mask", "strength"],
        ["offset"],
        ["feather", "mask"],
    ]


def test_the_command_line_knows_its_parts(tmp_path: Path) -> None:
    answered = CliRunner().invoke(compare_versions, ["HEAD", "--only", "none"])
    assert answered.exit_code == 2
    assert "pictures" in answered.output
