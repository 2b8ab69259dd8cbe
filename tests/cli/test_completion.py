"""`oar completion`: the scripts, and what a shell gets from them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from oar_cli import VERBS, main
from oar_cli.completion import SHELLS
from tests.server.live import ROOT


def script(shell: str) -> str:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With `oar` on the path, as an installation puts it there."""
    program = tmp_path / "oar"
    program.write_text(f"#!{sys.executable}\nfrom oar_cli import main\nmain(prog_name='oar')\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def completed(environment: dict[str, str], shell: str, words: str) -> list[str]:
    """What the program itself answers to a shell that asks."""
    count = len(words.split(" ")) - 1
    last = {"fish": words.split(" ")[-1]}.get(shell, str(count))
    asked = {"_OAR_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": last}
    done = subprocess.run(["oar"], env={**environment, **asked}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_registers_a_function_and_asks_the_program(shell: str) -> None:
    text = script(shell)
    assert f"_OAR_COMPLETE={shell}_complete" in text
    assert "_oar_completion" in text


@pytest.mark.parametrize("shell", SHELLS)
def test_verbs_and_options_are_completed(environment: dict[str, str], shell: str) -> None:
    assert {verb for verb in VERBS if any(verb in line for line in completed(environment, shell, "oar "))} == set(VERBS)
    assert any("--entropy-bound" in line for line in completed(environment, shell, "oar generate --ent"))
    assert any("zsh" in line for line in completed(environment, shell, "oar completion z"))


def test_bash_completes_with_the_script(environment: dict[str, str]) -> None:
    """As somebody would: the script is evaluated, then bash's own function is called for `oar gen<TAB>`."""
    ask = 'eval "$(oar completion bash)"; complete -p oar; COMP_WORDS=(oar gen); COMP_CWORD=1; _oar_completion oar'
    command = ["bash", "--norc", "-c", f'{ask}; echo "${{COMPREPLY[@]}}"']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    registered, reply = done.stdout.splitlines()
    assert registered.startswith("complete ")
    assert registered.endswith(" oar")
    assert reply == "generate"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_shell_itself_takes_the_script(environment: dict[str, str], shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    subprocess.run([shell, "-n"], input=script(shell), env=environment, text=True, check=True)


def test_a_verb_is_completed_without_loading_it(environment: dict[str, str]) -> None:
    """To load them all takes seconds, and torch."""
    source = "import sys; sys.argv[0] = 'oar'; from oar_cli import main\ntry:\n    main(prog_name='oar')\n"
    source += "finally:\n    print('torch' in sys.modules)"
    asked = {"_OAR_COMPLETE": "bash_complete", "COMP_WORDS": "oar ", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, env={**environment, **asked}, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False"
    assert "plain,train" in done.stdout


def test_an_unknown_shell_is_refused() -> None:
    result = CliRunner().invoke(main, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.output
