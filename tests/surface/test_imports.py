"""What each process may load: the API starts fast and scales without torch."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "jaxtyping", "oar_core"}


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint(' '.join(name.partition('.')[0] for name in sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize(
    "statement",
    [
        "from server.api.app import create_app; from server.settings import Settings; create_app(Settings())",
        "import oar_cli.api",
        "import oar_cli.serve",
        "from click.testing import CliRunner; from oar_cli import main; CliRunner().invoke(main, ['--help'])",
    ],
)
def test_the_api_and_the_supervisor_never_load_the_library(statement: str) -> None:
    assert not loaded_by(statement) & HEAVY


def test_the_guard_of_the_bundled_redis_needs_the_standard_library_only() -> None:
    assert not loaded_by("import server.jobs.guard") & {"redis", "pydantic", "fastapi", *HEAVY}
