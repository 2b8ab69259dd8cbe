"""The fenced blocks of a Markdown file, and the comments above them that say why one is not run."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUNNABLE = {"bash", "console", "python"}
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
FENCE = re.compile(r"( *)```(\w*)$")


@dataclass(frozen=True)
class Block:
    path: Path
    line: int  # of the opening fence, from 1
    language: str
    text: str
    not_run: str | None  # the reason

    @property
    def where(self) -> str:
        return f"{self.path.name}:{self.line}"


def read_blocks(path: Path) -> Iterator[Block]:
    """All blocks, those of other languages too."""
    above, opening, inside = "", None, list[str]()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if opening is None and fence:
            opening, inside = (number, fence[2]), []
        elif opening is not None and line.strip() == "```":
            reason = NOT_RUN.search(above)
            text = textwrap.dedent("\n".join(inside)) + "\n"
            yield Block(path, *opening, text, reason[1] if reason else None)
            above, opening = "", None
        elif opening is not None:
            inside.append(line)
        elif line.strip():
            above = line
    assert opening is None, f"{path} has a block that does not end"
