"""Text is read and written as UTF-8, whatever the locale of the machine says."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("oar_cli", "oar_client", "oar_core", "oar_lab", "oar_wire", "server", "ops", "study")
TEXT_CALLS = {"read_text", "write_text", "TextIOWrapper"}
RUNNERS = {"run", "Popen", "check_output", "check_call", "call"}
MODE = re.compile(r"[rwaxt+]+")


def python_files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def depends_on_the_locale(call: ast.Call) -> bool:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords or None in keywords:
        return False
    function = call.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name in TEXT_CALLS:
        return True
    if name in RUNNERS:
        return bool(keywords.keys() & {"text", "universal_newlines"})
    if name not in {"open", "fdopen"}:
        return False
    said = keywords.get("mode", next(iter(call.args[not is_method(function) :]), None))
    if said is None:  # connections and pictures are opened by this name, too
        return isinstance(function, ast.Name) or ast.unparse(function.value).endswith("path")
    return isinstance(said, ast.Constant) and MODE.fullmatch(str(said.value)) is not None


def is_method(function: ast.expr) -> bool:
    """Of a path, whose first argument is the mode; the functions of that name have it second."""
    return isinstance(function, ast.Attribute) and ast.unparse(function.value) not in {"os", "io", "gzip"}


def faults(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and depends_on_the_locale(node):
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)} without encoding"


def test_every_text_names_its_encoding() -> None:
    found = [fault for path in python_files() for fault in faults(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "is_fault"),
    [
        ("path.read_text()", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.write_text(text)", True),
        ("path.open()", True),
        ("path.open('w', newline='')", True),
        ("path.open('rb')", False),
        ("open(name)", True),
        ("open(name, 'ab')", False),
        ("open(name, mode='w')", True),
        ("(folder / name).open('a+')", True),
        ("(folder / name).open('ab')", False),
        ("os.fdopen(number, 'w')", True),
        ("self.connections.open()", False),
        ("Image.open(file)", False),
        ("subprocess.run(words, text=True)", True),
        ("subprocess.run(words)", False),
    ],
)
def test_what_is_found(code: str, is_fault: bool) -> None:
    call = ast.parse(code).body[0]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert depends_on_the_locale(call.value) is is_fault
