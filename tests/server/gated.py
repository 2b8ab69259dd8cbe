"""`python -m tests.server.gated VERB ...`: `oar`, whose engines stand behind the gate that the environment names."""

import os
import sys
from pathlib import Path

from oar_cli import main, supervisor
from server.settings import Settings
from tests.server.gate import GATE_VARIABLE, Gate


def install(gate: Gate, verb: str) -> None:
    """Children of `serve` are run by this module too; what has an engine has it guarded once it is warm."""
    if verb == "serve":
        supervisor.PROGRAM = (sys.executable, "-m", "tests.server.gated")
        return
    if verb not in {"worker", "generate", "edit"}:
        return
    from oar_cli import in_process
    from server.worker import models, worker

    def load_models(settings: Settings) -> list[models.LoadedModel]:
        loaded = models.load_models(settings)
        for model in loaded:
            model.engine.step = gate.guard(model.engine.step)
        return loaded

    worker.load_models = in_process.load_models = load_models


if __name__ == "__main__":
    install(Gate(Path(os.environ[GATE_VARIABLE])), sys.argv[1])
    main(prog_name="oar")
