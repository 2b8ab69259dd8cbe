"""The documents keep to their limits, and the counts count what they say."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from grimp import ImportGraph

from ops import house

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files() -> list[str]:
    return house.tracked_files(ROOT)


def test_the_documents_have_at_most_so_many_words(files: list[str]) -> None:
    found = house.documents(ROOT, files)
    assert {"README.md", "LOG.md", "CHANGELOG.md", "docs/api.md", "docs/README.md"} <= set(found)
    assert sum(found.values()) <= house.MAX_WORDS, found


def test_the_readme_is_short() -> None:
    assert len((ROOT / house.README).read_text(encoding="utf-8").splitlines()) <= house.MAX_README_LINES


def test_an_experiment_of_the_log_is_short() -> None:
    found = house.experiments((ROOT / house.LOG).read_text(encoding="utf-8"))
    assert found
    assert {heading: words for heading, words in found.items() if words > house.MAX_EXPERIMENT_WORDS} == {}


def test_words_hold_a_letter_or_a_digit() -> None:
    assert house.count_words("| a table | 3.5 % |\n| --- | --- |\n`code` - *and* ü\n") == 6


def test_experiments_stand_below_their_heading() -> None:
    log = "# Log\n\n## Open\n\nNot one.\n\n# Experiments\n\n## First\n\nThree words here.\n\n## Second\n\nTwo words.\n"
    assert house.experiments(log) == {"First": 3, "Second": 2}


def test_names_and_classes_of_modules(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f(): ...\ndef _g(): ...\nclass C:\n" + "".join(
        f"    def m{number}(self): ...\n" for number in range(13)))  # fmt: skip
    (tmp_path / "b.py").write_text("def f(): ...\ndef _g(): ...\nclass D:\n    def m(self): ...\n")
    modules = [house.read_module(tmp_path, name) for name in ("a.py", "b.py")]
    assert house.repeated_names(modules) == {"f": ["a", "b"]}
    assert house.large_classes(modules) == {"a:C": 13}


def test_cycles_of_imports() -> None:
    graph = ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e")):
        graph.add_import(importer=importer, imported=imported)
    assert house.import_cycles(graph) == [["a", "b", "c"]]


def test_the_command_prints_each_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(house.print_house, [])
    assert result.exit_code == 0, result.output
    for part in ("words in all", "lines of README.md", "lines of oar_wire", "lines of oar_lab", "import cycles"):
        assert part in result.output
