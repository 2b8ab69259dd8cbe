"""The locks of the images: whole, hashed, of the versions of constraints.txt. No network is asked."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from oar_cli import VERBS
from tests.surface.test_docker import DOCKERFILES, ROOT, instructions

LOCKS = ROOT / "docker" / "locks"
PROJECT: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {"api": ["otel", "s3"], "worker-cpu": ["worker", "otel", "s3"], "worker-cuda": ["worker", "otel", "s3"]}
NOT_IN_IMAGES = set(PROJECT["optional-dependencies"]) - {"worker", "otel", "s3"}
PLATFORM = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64",
            "python_version": "3.11", "python_full_version": "3.11.13"}  # fmt: skip
# What the wheels of torch from the package index bring, and the ones without CUDA do not.
CUDA = re.compile(r"nvidia-[a-z0-9-]+|cuda-(bindings|pathfinder|toolkit)|triton")
# What a package that `make test` does not install requires, and no other does.
OF_ABSENT = {"transformers": ["regex"]}
ENTRY = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, version in (line.split("==", 1) for line in lines)}


def read_lock(image: str) -> dict[str, str]:
    """Versions by name. Every line has to be a part of an entry with hashes, or a comment at the top."""
    text = re.sub(r"\A(#.*\n)+", "", (LOCKS / f"{image}.txt").read_text(encoding="utf-8"))
    assert ENTRY.sub("", text) == ""
    return {entry["name"]: entry["version"] for entry in ENTRY.finditer(text)}


def closure(wanted: Iterable[str]) -> set[str]:
    """Names of requirements and of all that they require in turn, as what is installed here says."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in wanted]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({**PLATFORM, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for of in {"", *requirement.extras}:
            if (name, of) not in seen:
                seen.add((name, of))
                waiting += [(Requirement(text), of) for text in _requires(name)]
    return found


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:  # of an extra that is not installed
        return OF_ABSENT.get(name, [])


def wanted_by(extras: Iterable[str]) -> list[str]:
    return [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]


def test_there_is_a_lock_for_each_image_and_no_other() -> None:
    assert {path.stem for path in LOCKS.iterdir()} == {path.name.split(".")[0] for path in DOCKERFILES} == set(EXTRAS)
    assert {"api", "worker"} <= set(VERBS)


@pytest.mark.parametrize("image", EXTRAS)
def test_a_lock_has_the_versions_of_the_constraints(image: str) -> None:
    known = constraints()
    for name, version in read_lock(image).items():
        if image == "worker-cuda" and CUDA.fullmatch(name):
            assert name not in known
        else:
            build = "+cpu" if (image, name) == ("worker-cpu", "torch") else ""
            assert version == known[name] + build, name


@pytest.mark.parametrize("image", EXTRAS)
def test_a_lock_is_all_that_its_image_needs(image: str) -> None:
    locked = {name for name in read_lock(image) if not (image == "worker-cuda" and CUDA.fullmatch(name))}
    needed = closure([*wanted_by(EXTRAS[image]), "setuptools"])
    assert locked == {name for name in needed if not CUDA.fullmatch(name)}
    assert ("torch" in locked) == (image != "api"), "the API has no torch"
    header = (LOCKS / f"{image}.txt").read_text(encoding="utf-8").splitlines()[0]
    assert f"oar-server[{','.join(EXTRAS[image])}]" in header


def test_a_constraint_that_no_lock_has_is_of_tests_and_tools_alone() -> None:
    """Or of a package whose requirements this machine's Python or platform leaves out."""
    locked = {name for image in EXTRAS for name in read_lock(image)}
    others = set(constraints()) - locked
    assert others <= closure(wanted_by(NOT_IN_IMAGES))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_installs_what_is_locked_and_nothing_else(path: Path) -> None:
    image = path.name.split(".")[0]
    found = instructions(path)
    assert ("COPY", f"docker/locks/{image}.txt lock.txt") in found
    others, own = [rest.split() for name, rest in found if name == "RUN" and "pip" in rest]
    assert {"--require-hashes", "--no-deps"} <= set(others)
    assert others[-2:] == ["--requirement", "lock.txt"]
    assert ("https://download.pytorch.org/whl/cpu" in others) == (image == "worker-cpu")
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(own)
    assert own[-1] == "."
