"""Counts the words of the documents and the lines, names and imports of the packages: `python -m ops.house`."""

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import grimp
from grimp import ImportGraph

MAX_WORDS = 20_000
MAX_README_LINES = 149
MAX_EXPERIMENT_WORDS = 250
README, LOG = "README.md", "LOG.md"
EXPERIMENTS = "# Experiments"
PAGES = re.compile(r"(README|LOG|CHANGELOG)\.md|docs/[^/]+\.md|.*/README\.md")
SERVING = ("oar_wire", "oar_core", "server", "oar_client", "oar_cli")
TOOLS = ("oar_lab", "ops")
SOURCES = {".py", ".lua", ".js", ".mjs"}
FOREIGN = ("swagger-ui",)  # code of other projects, kept as it came
MAX_METHODS = 12


@dataclass(frozen=True)
class Module:
    name: str
    public: frozenset[str]
    methods: dict[str, int]
    """Number of methods of each class."""


@click.command()
def print_house() -> None:
    """Print the size of the documents and of the code."""
    root = Path()
    files = tracked_files(root)
    for row in (*document_rows(root, files), (), *code_rows(root, files)):
        click.echo("" if not row else "{:>8}  {:>8}  {}".format(*row))


def tracked_files(root: Path) -> list[str]:
    """Paths of all files under version control, new ones included."""
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.splitlines()
    return sorted(path for path in set(listed) if (root / path).is_file())


# documents


def count_words(text: str) -> int:
    """Runs of characters between spaces that hold a letter or a digit. Tables and code count."""
    return sum(any(character.isalnum() for character in word) for word in text.split())


def documents(root: Path, files: Iterable[str]) -> dict[str, int]:
    """The words of each document."""
    return {path: count_words((root / path).read_text(encoding="utf-8")) for path in files if PAGES.fullmatch(path)}


def experiments(log: str) -> dict[str, int]:
    """The words of each experiment of the log, by its heading."""
    parts = re.split(r"^## (.+)\n", log.partition(f"\n{EXPERIMENTS}\n")[2], flags=re.M)[1:]
    return {heading: count_words(text) for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def document_rows(root: Path, files: Iterable[str]) -> Iterator[tuple[object, ...]]:
    found = documents(root, files)
    longest = max(experiments((root / LOG).read_text(encoding="utf-8")).values(), default=0)
    yield "figure", "limit", "documents"
    for path, words in sorted(found.items(), key=lambda item: -item[1]):
        yield f"{words:,}", "", path
    yield f"{sum(found.values()):,}", f"{MAX_WORDS:,}", "words in all"
    yield len((root / README).read_text(encoding="utf-8").splitlines()), MAX_README_LINES, f"lines of {README}"
    yield longest, MAX_EXPERIMENT_WORDS, f"words of the longest experiment in {LOG}"


# code


def count_lines(root: Path, files: Iterable[str], packages: Iterable[str]) -> int:
    """Lines of source files, blank ones and comments included."""
    paths = (Path(path) for path in files if path.startswith(tuple(f"{package}/" for package in packages)))
    ours = (path for path in paths if path.suffix in SOURCES and not path.name.startswith(FOREIGN))
    return sum(len((root / path).read_text(encoding="utf-8").splitlines()) for path in ours)


def read_modules(root: Path, files: Iterable[str], packages: Iterable[str]) -> list[Module]:
    prefixes = tuple(f"{package}/" for package in packages)
    return [read_module(root, path) for path in files if path.startswith(prefixes) and path.endswith(".py")]


def read_module(root: Path, path: str) -> Module:
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    defined = [node for node in tree.body if isinstance(node, (*functions, ast.ClassDef))]
    classes = [node for node in defined if isinstance(node, ast.ClassDef)]
    return Module(
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."),
        frozenset(node.name for node in defined if not node.name.startswith("_")),
        {node.name: sum(isinstance(child, functions) for child in node.body) for node in classes},
    )


def repeated_names(modules: Iterable[Module]) -> dict[str, list[str]]:
    """Public functions and classes that several modules define, with these modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for name in module.public:
            places[name].append(module.name)
    return {name: sorted(found) for name, found in sorted(places.items()) if len(found) > 1}


def large_classes(modules: Iterable[Module]) -> dict[str, int]:
    """Classes with more than 12 methods, the largest first."""
    found = {f"{module.name}:{name}": number for module in modules for name, number in module.methods.items()}
    return dict(sorted(((name, n) for name, n in found.items() if n > MAX_METHODS), key=lambda item: -item[1]))


def import_cycles(graph: ImportGraph) -> list[list[str]]:
    """Groups of modules that import each other: strongly connected components, found by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    cycles: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in graph.find_modules_directly_imported_by(module):
            if imported not in index:
                visit(imported)
                low[module] = min(low[module], low[imported])
            elif imported in stack:
                low[module] = min(low[module], index[imported])
        if low[module] == index[module]:
            start = stack.index(module)
            if len(stack) - start > 1:
                cycles.append(sorted(stack[start:]))
            del stack[start:]

    for module in sorted(graph.modules):
        if module not in index:
            visit(module)
    return cycles


def code_rows(root: Path, files: Iterable[str]) -> Iterator[tuple[object, ...]]:
    files = list(files)
    there = [package for package in (*SERVING, *TOOLS) if (root / package).is_dir()]
    modules = read_modules(root, files, there)
    repeated, large = repeated_names(modules), large_classes(modules)
    cycles = import_cycles(grimp.build_graph(*there, cache_dir=None))
    yield "figure", "aim", "code"
    yield f"{count_lines(root, files, SERVING):,}", "24,000", f"lines of {' '.join(SERVING)}"
    yield f"{count_lines(root, files, TOOLS):,}", "5,500", f"lines of {' '.join(TOOLS)}"
    yield len(repeated), 20, "public names that several modules define"
    yield from (("", "", f"  {name}: {' '.join(places)}") for name, places in repeated.items())
    yield len(large), 3, f"classes with more than {MAX_METHODS} methods"
    yield from (("", "", f"  {name}: {number}") for name, number in large.items())
    yield len(cycles), 0, "import cycles"
    yield from (("", "", f"  {' '.join(cycle)}") for cycle in cycles)


if __name__ == "__main__":
    print_house()
