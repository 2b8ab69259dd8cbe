"""Differences of two OpenAPI documents, as a list: what came, what went, what changed its type or its bounds.

Sentences, titles and examples are left out. CHANGELOG.md is asked whether it names what came or went.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ops.versions.part import Part
from ops.versions.server import Server
from ops.versions.tree import Tree

SENTENCES = {"description", "summary", "title", "meaning", "example", "examples", "externalDocs", "openapi", "info"}
# Whose keys are names of the API.
NAMES = {"properties", "schemas", "paths", "responses", "parameters", "required", "x-error-codes"}
MAX_VALUE = 160  # letters of a value that is told


class Difference(NamedTuple):
    sign: str  # + came, - went, ~ changed
    path: tuple[str, ...]  # keys of the document
    what: str

    @property
    def owner(self) -> str:
        """The schema, or the route with what of it: its body or one of its answers."""
        match self.path:
            case ("components", kind, name, *_):
                return f"{name}" if kind == "schemas" else f"{kind} {name}"
            case ("paths", route, method, *rest) if rest:
                part = {"requestBody": " body", "responses": f" {rest[-1]}"}.get(rest[0], "")
                answer = f" {rest[1]}" if rest[0] == "responses" and len(rest) > 2 else part
                form = " (form)" if "multipart/form-data" in rest else ""
                return f"{method.upper()} {route}{answer if rest[0] == 'responses' else part}{form}"
            case ("paths", *rest):
                return " ".join(rest)
            case _:
                return " ".join(self.path[:1])

    @property
    def names(self) -> list[str]:
        """Keys of the path that are names of the API: schemas, fields, routes, statuses, error codes."""
        return [key for before, key in pairwise(self.path) if before in NAMES]

    @property
    def tail(self) -> str:
        """Part of the owner: a field, a parameter, a bound."""
        start = next((at for at, key in enumerate(self.path) if key in {"properties", "parameters", "required"}), None)
        if start is not None:
            return " ".join(key for key in self.path[start:] if key != "properties")
        return " ".join(self.path[1:]) if self.path[0] == "x-error-codes" else ""


def compare_openapi(old: Tree, new: Tree) -> Part:
    found = list(differences(_document(old), _document(new)))
    changelog = (new.folder / "CHANGELOG.md").read_text(encoding="utf-8")
    counts = {sign: sum(one.sign == sign for one in found) for sign in "+-~"}
    unnamed = sorted({one.names[-1] for one in found if one.names and not is_named(one, changelog)})
    lines = [
        *list_differences(found),
        "",
        f"{counts['+']} came, {counts['-']} went, {counts['~']} changed; sentences and examples are not compared",
        f"not named in CHANGELOG.md: {', '.join(unnamed) or 'nothing'}",
    ]
    facts = {"came": counts["+"], "went": counts["-"], "changed": counts["~"], "not_in_changelog": unnamed}
    return Part("OpenAPI", True, lines, facts)


def list_differences(found: list[Difference]) -> list[str]:
    """A line for each difference, with all the places that have the same."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for one in found:
        owners = places.setdefault((one.sign, one.tail, one.what), [])
        if one.owner not in owners:
            owners.append(one.owner)
    lines = [
        f"{sign} {', '.join(owners)}{' . ' if tail else ''}{tail}{': ' if what else ''}{what}"
        for (sign, tail, what), owners in places.items()
    ]
    return sorted(lines, key=lambda line: ("+-~".index(line[0]), line))


def is_named(difference: Difference, changelog: str) -> bool:
    """Tells whether the changelog has the name that is nearest to the difference as a word of its own."""
    if not difference.names:
        return False
    return re.search(rf"(?<![\w/]){re.escape(difference.names[-1])}(?!\w)", changelog) is not None


def differences(old: Any, new: Any) -> Iterator[Difference]:
    """Compares two whole documents."""
    yield from _differences((), _bare(old), _bare(new))


def _differences(path: tuple[str, ...], old: Any, new: Any) -> Iterator[Difference]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old | new):
            if key not in old:
                yield Difference("+", (*path, key), _value(new[key]))
            elif key not in new:
                yield Difference("-", (*path, key), _value(old[key]))
            else:
                yield from _differences((*path, key), old[key], new[key])
    else:
        yield Difference("~", path, f"{_value(old)} -> {_value(new)}")


def _bare(node: Any, *, has_names: bool = False) -> Any:
    """Without sentences; lists of words and of named things are mappings, so that single entries are compared.

    `has_names` of a mapping whose keys are names of the API, where none of them is left out.
    """
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if has_names or key not in SENTENCES}
        bare = {key: _bare(value, has_names=key in NAMES and not has_names) for key, value in kept.items()}
        return _flat(bare)
    if isinstance(node, list):
        if all(isinstance(entry, str) for entry in node):
            return dict.fromkeys(node, "")
        names = [_name(entry) for entry in node]
        if None not in names and len(set(names)) == len(names):
            return {name: _bare(entry) for name, entry in zip(names, node)}
        return [_bare(entry) for entry in node]
    return node


def _flat(node: dict[str, Any]) -> dict[str, Any]:
    """A choice of a type and null is that type, which may be null."""
    match node.get("anyOf"):
        case [dict() as kind, {"type": "null"}] if not kind.keys() & node.keys():
            return {key: value for key, value in node.items() if key != "anyOf"} | kind | {"null": True}
        case _:
            return node


def _name(entry: Any) -> str | None:
    """Name of a parameter or an error code."""
    if not isinstance(entry, dict):
        return None
    return entry.get("name") or entry.get("code")


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(_as_lists(value), ensure_ascii=False)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."


def _as_lists(value: Any) -> Any:
    """Lists of words as they were, see `_bare`."""
    if not isinstance(value, dict):
        return [_as_lists(entry) for entry in value] if isinstance(value, list) else value
    is_list = bool(value) and all(entry == "" for entry in value.values())
    return list(value) if is_list else {key: _as_lists(entry) for key, entry in value.items()}


def _document(tree: Tree) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, Server(tree, Path(folder)) as server:
        return server.openapi()
