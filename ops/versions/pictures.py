"""The same requests, one after another, to the servers of both versions: are tokens, pixels and files equal?"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ops.versions.part import Part, part_table
from ops.versions.requests import NUM_PICTURES, SentRequest, requests_of
from ops.versions.server import ServedPicture, Server
from ops.versions.tree import Tree


def compare_pictures(old: Tree, new: Tree, models: Sequence[str] = (), count: int = NUM_PICTURES) -> Part:
    """`count` of each model; `models` are the old version's, or all that both have."""
    requests, before = _draw(old, models, count)
    _, after = _draw(new, models, count, requests)
    return pictures_part(requests, before, after)


def pictures_part(
    requests: Sequence[SentRequest], before: dict[str, ServedPicture], after: dict[str, ServedPicture]
) -> Part:
    """Pictures by the names of their requests."""
    rows = [
        (request.name, request.kind, *(_same(flag) for flag in _equal(before[request.name], after[request.name])))
        for request in requests
    ]
    differ = [request.name for request in requests if before[request.name] != after[request.name]]
    num_equal = len(requests) - len(differ)
    lines = [
        *part_table(("request", "what it asks for", "tokens", "pixels", "PNG"), rows),
        "",
        f"{num_equal} of {len(requests)} pictures are equal to the last bit",
    ]
    return Part("Pictures", not differ, lines, {"pictures": len(requests), "equal": num_equal, "differ": differ})


def _draw(
    tree: Tree, models: Sequence[str], count: int, requests: Sequence[SentRequest] = ()
) -> tuple[list[SentRequest], dict[str, ServedPicture]]:
    """Without `requests`, they are made of the model cards of this tree."""
    drawn: dict[str, ServedPicture] = {}
    named = {"OAR_MODELS": ",".join(models or shipped(tree))}
    with tempfile.TemporaryDirectory() as folder, Server(tree, Path(folder), **named) as server:
        asked = list(requests) or [one for model in server.models() for one in requests_of(model, count)]
        for request in asked:
            (drawn[request.name],) = server.pictures(server.submit(request.path, request.body))
    return asked, drawn


def shipped(tree: Tree) -> list[str]:
    """Folders of models among the tree's weights."""
    return sorted(path.parent.name for path in tree.weights.glob("*/config.json"))


def _equal(before: ServedPicture, after: ServedPicture) -> tuple[bool, bool, bool]:
    return before.tokens == after.tokens, before.pixels == after.pixels, before.png == after.png


def _same(flag: bool) -> str:
    return "equal" if flag else "DIFFER"
