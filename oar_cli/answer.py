"""The answer of a command, for people or, with `--json`, to programs: one JSON document on stdout, nothing else."""

import json
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Answer:
    """A command's result: `document` is plain JSON, `lines` are what a person reads instead."""

    document: Any
    lines: Iterable[str] = ()
    exit_code: int = 0  # of a command that worked and found something wrong


def writes(text: str) -> bool:
    """Tells whether standard output has these letters, which is up to the locale."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


class AnswerCommand(click.Command):
    """A command that returns an Answer; it takes `--json`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        text = "Print one JSON document and nothing else; progress goes to stderr."
        self.params.append(click.Option(["--json", "as_json"], is_flag=True, help=text))

    def invoke(self, ctx: click.Context) -> Any:
        as_json = bool(ctx.params.pop("as_json", False))
        # Whatever is written on the way, by this code or a library's, must not come before the document.
        with redirect_stdout(sys.stderr):
            answer = super().invoke(ctx)
        if as_json:
            click.echo(json.dumps(answer.document, indent=2, ensure_ascii=not writes("ü…█")))
        else:
            for line in answer.lines:
                click.echo(line)
        if answer.exit_code:
            ctx.exit(answer.exit_code)
        return answer


class AnswerGroup(click.Group):
    """A group whose commands all return Answers."""

    command_class = AnswerCommand
