"""Repeats the tests that chance can break, and ends in one JSON line.

    python -m ops.repeat seeds      # each property test with 20 other seeds
    python -m ops.repeat running    # each test that touches a running job 100 times

What follows `--` is given to pytest: `python -m ops.repeat running -- tests/client -x`. `make repeat` does both.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
SEEDS = 20
TIMES = 100
PYTEST = (sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider")
COUNTS = re.compile(r"(\d+) (passed|failed|error|skipped)")
FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass
class Tally:
    counts: Counter[str] = field(default_factory=Counter[str])
    failures: Counter[str] = field(default_factory=Counter[str])

    def run(self, name: str, words: Sequence[str]) -> None:
        """One run of pytest: a line that says how it ended, and its output where something failed."""
        start = time.monotonic()
        done = subprocess.run((*PYTEST, *words), cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        ending = done.stdout.rstrip().rpartition("\n")[2].strip("= ")
        counts = Counter({outcome: int(number) for number, outcome in COUNTS.findall(ending)})
        self.counts.update(counts)
        self.failures.update(FAILURE.findall(done.stdout))
        if done.returncode or not counts["passed"]:
            self.failures[f"{name}: pytest ended with {done.returncode}"] += 1
            sys.stdout.write(done.stdout)
        sys.stdout.write(f"{name}: {ending or 'nothing ran'} ({time.monotonic() - start:.0f} s)\n")
        sys.stdout.flush()


def property_files() -> list[str]:
    """Lists test files that use hypothesis; others need not be imported."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if "hypothesis" in path.read_text(encoding="utf-8")]


def repeat_seeds(tally: Tally, count: int, first: int, more: Sequence[str]) -> None:
    """Hypothesis forgets what it found before: only the seed decides. Its profile of automatic builds knows no seed."""
    for seed in range(first, first + count):
        chosen = ("--hypothesis-profile=default", f"--hypothesis-seed={seed}")
        tally.run(f"seed {seed}", ("-m", "hypothesis and not chaos", *chosen, *(more or property_files())))


def repeat_running(tally: Tally, count: int, more: Sequence[str]) -> None:
    """Each file's tests `count` times, one round after the other on the same server."""
    words = ("-m", "running and not chaos", f"--count={count}", "--repeat-scope=module", *(more or ("tests",)))
    tally.run(f"{count} times", words)


def repeat_tests() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.repeat", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("seeds", "running"))
    parser.add_argument("--count", type=int, help=f"default: {SEEDS} seeds, {TIMES} times")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    given, more = parser.parse_args(words[:at]), words[at + 1 :]
    tally, start = Tally(), time.monotonic()
    if given.what == "seeds":
        repeat_seeds(tally, given.count or SEEDS, given.first, more)
    else:
        repeat_running(tally, given.count or TIMES, more)
    line = {"what": given.what, "seconds": round(time.monotonic() - start), **tally.counts, "failures": tally.failures}
    sys.stdout.write(f"{json.dumps(line)}\n")
    raise SystemExit(bool(tally.failures))


if __name__ == "__main__":
    repeat_tests()
