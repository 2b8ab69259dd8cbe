"""`oar generate` and `oar edit`: what they print, paint and leave behind."""

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from oar_cli import main
from oar_core.weights import write_manifest
from tests.models.folders import write_golden_model
from tests.server.gate import Gate
from tests.server.live import ROOT, LiveServer
from tests.server.tenants import write_keys
from tests.server.tiny import NAME, NUM_TOKENS
from tests.waiting import HANG_SECONDS, wait_for

WISH = ["--seed", "7", "--order", "spiral", "--steps", "4"]
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@pytest.fixture
def runner(weights_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    monkeypatch.setenv("OAR_WEIGHTS_DIR", str(weights_dir))
    monkeypatch.delenv("OAR_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def run(runner: CliRunner, *words: str) -> Result:
    result = runner.invoke(main, list(words))
    assert result.exit_code == 0, result.output
    return result


def there(place: str, live: LiveServer) -> list[str]:
    return ["--url", live.url] if place == "server" else []


places = pytest.mark.parametrize("place", ["here", "server"])


@places
def test_json_is_one_object_and_nothing_else(runner: CliRunner, live: LiveServer, place: str) -> None:
    words = [*WISH, *there(place, live)]
    result = run(runner, "generate", "a red circle", "-n", "2", "-o", "x.png", "--json", *words)
    told = json.loads(result.stdout)
    assert told.keys() == {"job_id", "seed", "files", "timings", "params", "warnings"}
    assert (told["seed"], told["files"]) == (7, ["x-0.png", "x-1.png"])
    assert all(size_of(name) == (20, 16) for name in told["files"])
    assert (told["params"]["order"], told["params"]["model"]) == ("spiral", NAME)
    times = told["timings"]
    assert 0 < times["first_patch"] <= times["total"]
    assert times["created_at"] <= times["started_at"] <= times["finished_at"]
    if place == "server":
        assert live.client.get(f"/v1/generations/{told['job_id']}").json()["status"] == "completed"


def size_of(name: str) -> tuple[int, int]:
    with Image.open(name) as picture:
        return picture.size


@places
def test_events_are_json_lines(runner: CliRunner, live: LiveServer, place: str) -> None:
    result = run(runner, "generate", "a red circle", "--events", *WISH, *there(place, live))
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["type"] for event in events if event["type"] not in ("preview", "patches")] == [
        "queued",
        "started",
        "completed",
    ]
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))
    patches = [patch for event in events if event["type"] == "patches" for patch in event["patches"]]
    assert sorted(patch["position"] for patch in patches) == list(range(NUM_TOKENS))
    assert [patch["rank"] for patch in patches] == list(range(NUM_TOKENS))
    completed = events[-1]
    assert completed["fingerprint"]["model_hash"] == recipe_in("out.png")["model_hash"]
    assert completed["seconds"] == round(completed["seconds"], 3)
    assert [output["kind"] for output in completed["outputs"]] == ["image"]


def recipe_in(name: str) -> dict[str, Any]:
    with Image.open(name) as picture:
        return json.loads(picture.info["oar"])


def test_events_here_show_the_canvas_between(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAR_PREVIEW_INTERVAL", "0.02")
    words = ["generate", "a red circle", "--events", "-n", "12", "--steps", str(NUM_TOKENS), "--guidance", "3"]
    events = [json.loads(line) for line in run(runner, *words).stdout.splitlines()]
    previews = [event for event in events if event["type"] == "preview"]
    assert previews
    assert {(event["width"], event["height"], event["total"]) for event in previews} == {(20, 16, NUM_TOKENS)}


def test_json_and_events_exclude_each_other(runner: CliRunner) -> None:
    result = runner.invoke(main, ["generate", "x", "--json", "--events"])
    assert result.exit_code == 2
    assert "choose one" in result.output


def test_the_environment_names_the_server(runner: CliRunner, live: LiveServer) -> None:
    result = runner.invoke(
        main, ["generate", "a red circle", "--json", *WISH], env={"OAR_URL": live.url, "OAR_API_KEY": "none"}
    )
    assert json.loads(result.stdout)["job_id"].startswith("gen-")
    result = runner.invoke(main, ["generate", "x", "--url", live.url, "--api-key", "two\nlines"])
    assert result.exit_code == 77
    assert "printable" in result.output


def test_a_file_that_cannot_be_written_is_told(runner: CliRunner) -> None:
    result = runner.invoke(main, ["generate", "a red circle", *WISH, "-o", "nowhere/x.png"])
    assert result.exit_code == 1
    assert "nowhere is no folder" in result.output


def test_what_could_not_be_kept_is_not_made(runner: CliRunner, live: LiveServer) -> None:
    before = live.client.get("/metrics").text
    words = ["generate", "a red circle", "--url", live.url]
    assert runner.invoke(main, [*words, "-o", "nowhere/x.png"]).exit_code == 1
    result = runner.invoke(main, [*words, "-o", "x.bmp"])
    assert result.exit_code == 2
    assert "x.bmp: pictures are written as .png, .webp, .jpg, .jpeg" in result.output
    assert accepted(live.client.get("/metrics").text) == accepted(before)


def accepted(metrics: str) -> list[str]:
    return [line for line in metrics.splitlines() if line.startswith("oar_jobs_")]


ORDER = [*range(0, NUM_TOKENS, 2), *range(1, NUM_TOKENS, 2)]


@places
def test_a_custom_order(runner: CliRunner, live: LiveServer, place: str) -> None:
    words = ["--order", ",".join(map(str, ORDER)), "--steps", str(NUM_TOKENS), *there(place, live)]
    events = [json.loads(line) for line in run(runner, "generate", "x", "--events", *words).stdout.splitlines()]
    patches = [patch for event in events if event["type"] == "patches" for patch in event["patches"]]
    assert [patch["position"] for patch in patches] == ORDER
    for order in ("0,0,1", "7", "zigzag"):
        result = runner.invoke(main, ["generate", "x", "--order", order, *there(place, live)])
        assert result.exit_code == 1
        assert "order" in result.output


@places
def test_a_picture_like_another(runner: CliRunner, live: LiveServer, place: str) -> None:
    """From the PNG that carries what made it, or the request as JSON; what is said beside counts more."""
    order = json.dumps(ORDER)
    wish = ["--seed", "7", "--order", order, "--guidance", "3", "-n", "2"]
    run(runner, "generate", "a red circle", *wish, "-o", "a.png")
    again = ["generate", *there(place, live)]
    run(runner, *again, "--like", "a-1.png", "-o", "b.png")
    assert Path("b-1.png").read_bytes() == Path("a-1.png").read_bytes()
    with Image.open("a-0.png") as picture:
        request = json.loads(picture.info["oar"])
    Path("request.json").write_text(json.dumps(request))
    run(runner, *again, "--like", "request.json", "-o", "c.png")
    assert Path("c.png").read_bytes() == Path("a-0.png").read_bytes()
    run(runner, *again, "another prompt", "--like", "a-0.png", "--order", "raster", "-o", "d.png")
    with Image.open("d.png") as picture:
        told = json.loads(picture.info["oar"])
    assert told == {**request, "prompt": "another prompt", "order": "raster"}


def test_a_file_that_says_nothing(runner: CliRunner) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    Path("list.json").write_text("[1]")
    for name, reason in (
        ("plain.png", "neither a request as JSON nor a PNG"),
        ("list.json", "no JSON object"),
        ("nowhere.png", "No such file"),
    ):
        result = runner.invoke(main, ["generate", "--like", name])
        assert result.exit_code == 2
        assert reason in result.output


@places
def test_a_model_that_reads_prompts_asks_for_one(runner: CliRunner, live: LiveServer, place: str) -> None:
    result = runner.invoke(main, ["generate", *there(place, live)])
    assert result.exit_code == 1
    assert "prompt" in result.output


@places
def test_the_files_name_says_format_and_place(runner: CliRunner, live: LiveServer, place: str) -> None:
    words = ["generate", "a red circle", *WISH, *there(place, live)]
    for name, kind in (("x.webp", "WEBP"), ("x.JPG", "JPEG"), ("x", "PNG")):
        run(runner, *words, "-o", name)
        with Image.open(name) as picture:
            assert picture.format == kind
    told = run(runner, *words, "-n", "2", "-o", "{index}-of-{seed}.png")
    assert told.stdout.split() == ["0-of-7.png", "1-of-7.png"]


def test_what_only_a_server_can_promise(runner: CliRunner, live: LiveServer) -> None:
    words = ["generate", "a red circle", *WISH, "--json", "--priority", "high", "--deadline", "3000"]
    there = [*words, "--url", live.url, "--idempotency-key", "once-and-only-once"]
    first, second = (json.loads(run(runner, *there).stdout) for _ in range(2))
    assert first["job_id"] == second["job_id"]
    assert (first["params"]["priority"], first["params"]["deadline"]) == ("high", 3000)
    result = runner.invoke(main, [*words, "--idempotency-key", "x"])
    assert result.exit_code == 2
    assert "--url" in result.output


@places
def test_a_deadline_that_passes(runner: CliRunner, live: LiveServer, place: str) -> None:
    words = ["generate", "a red circle", "-n", "16", "--steps", str(NUM_TOKENS), "--guidance", "3"]
    result = runner.invoke(main, [*words, "--deadline", "0.001", *there(place, live)])
    assert result.exit_code == 1
    assert "deadline passed" in result.output
    assert not Path("out.png").exists()


def test_a_priority_that_is_not_said_is_what_the_tenant_may_have(
    runner: CliRunner, weights_dir: Path, tmp_path: Path
) -> None:
    """It was always sent, so that a tenant whose ceiling is low was refused."""
    keys = write_keys(tmp_path, one='priority_ceiling = "low"')
    data = tmp_path / "live"
    data.mkdir()
    with LiveServer(data, weights_dir, OAR_API_KEYS=str(keys.path)) as server:
        words = ["generate", "a red circle", *WISH, "--json", "--url", server.url, "--api-key", keys.one]
        assert json.loads(run(runner, *words).stdout)["params"]["priority"] == "low"
        result = runner.invoke(main, [*words, "--priority", "high"])
        assert result.exit_code == 77
        assert "not open to one" in result.output


# edits


@pytest.fixture
def picture_and_mask(tmp_path: Path) -> tuple[str, str]:
    Image.new("RGB", (20, 16), (200, 30, 30)).save(tmp_path / "in.png")
    mask = Image.new("RGBA", (20, 16), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 8, 20, 16))
    mask.save(tmp_path / "mask.png")
    return "in.png", "mask.png"


def test_an_edit_is_the_same_here_and_on_a_server(
    runner: CliRunner, live: LiveServer, picture_and_mask: tuple[str, str]
) -> None:
    image, mask = picture_and_mask
    words = ["edit", image, "a red circle", "--mask", mask, "--feather", "2", *WISH]
    run(runner, *words, "-o", "here.png")
    run(runner, *words, "-o", "there.png", "--url", live.url)
    assert Path("here.png").read_bytes() == Path("there.png").read_bytes(), "with the recipe inside"
    with Image.open("here.png") as edited:
        assert edited.convert("RGB").crop((0, 0, 20, 8)).getcolors() == [(160, (200, 30, 30))]
        assert json.loads(edited.info["oar"])["edit"]["feather"] == 2


@pytest.mark.running
def test_an_edit_is_painted_in_a_terminal_too(
    slow: LiveServer, tmp_path: Path, picture_and_mask: tuple[str, str]
) -> None:
    image, mask = (str(tmp_path / name) for name in picture_and_mask)
    words = ["edit", image, "a red circle", "--mask", mask, "-n", "16", "--guidance", "3", "--steps", "20"]
    with slow.held(3):
        terminal = Terminal([*words, "--url", slow.url, "-o", str(tmp_path / "x.png")], COLORTERM="truecolor")
        shown = terminal.wait_for(r"rank \d+/10 ")
        assert "38;2;200;30;30" in shown, "what is kept is seen from the start"
    assert terminal.end() == 0


@places
def test_variations_and_outpainting(
    runner: CliRunner, live: LiveServer, picture_and_mask: tuple[str, str], place: str
) -> None:
    image, _ = picture_and_mask
    varied = run(runner, "edit", image, "a circle", "--strength", "0.5", "--json", *WISH, *there(place, live))
    assert json.loads(varied.stdout)["params"]["edit"]["mode"] == "vary"
    moved = run(runner, "edit", image, "a circle", "--offset", "4", "-5", "--json", *WISH, *there(place, live))
    told = json.loads(moved.stdout)["params"]["edit"]
    assert (told["mode"], told["offset"]) == ("outpaint", [4, 0])


@places
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [(["in.png", "x"], 1, "send a mask"), (["in.png", "x", "--strength", "2"], 2, "strength"),
     (["nowhere.png", "x"], 2, "does not exist"), (["in.png", "x", "--mask", "in.png"], 1, "no pixel of alpha 0")],
)  # fmt: skip
def test_a_bad_edit_is_told(
    runner: CliRunner, live: LiveServer, picture_and_mask: tuple[str, str], place: str, words: list[str],
    code: int, sentence: str,
) -> None:  # fmt: skip
    result = runner.invoke(main, ["edit", *words, *there(place, live)])
    assert result.exit_code == code, result.output
    assert sentence in result.output


# in a terminal


class Terminal:
    """A pseudo terminal with `oar` in it."""

    def __init__(self, words: list[str], program: str = "oar_cli", **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(24, 80)
        inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", program, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.text = ""

    def resize(self, lines: int, columns: int) -> None:
        ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    def wait_for(self, pattern: str) -> str:
        """Reads until the pattern is found in what came since the last one."""
        start = len(self.text)
        while not re.search(pattern, self.text[start:], re.S) and self._read():
            pass
        found = self.text[start:]
        assert re.search(pattern, found, re.S), found[-2000:]
        return found

    def end(self) -> int:
        """Reads all there is; returns the exit code."""
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(HANG_SECONDS)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], HANG_SECONDS)
        assert ready, f"it hangs: {self.text[-2000:]}"
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the other side is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    """It paints one guided picture at a time, and can be held."""
    with LiveServer(tmp_path_factory.mktemp("slow"), weights_dir, is_gated=True, OAR_SLOTS="2") as server:
        yield server


def long_words(url: str, out: Path) -> list[str]:
    steps = str(NUM_TOKENS)
    return ["generate", "a red circle", "-n", "16", "--steps", steps, "--guidance", "3", "--url", url, "-o", str(out)]


@pytest.mark.running
def test_a_terminal_shows_the_picture_as_it_is_painted(slow: LiveServer, tmp_path: Path) -> None:
    with slow.held(3):
        terminal = Terminal(long_words(slow.url, tmp_path / "x.png"), COLORTERM="truecolor")
        shown = terminal.wait_for(r"rank \d+/20")
        assert ENTER in shown
        assert re.search(r"\x1b\[38;2;\d+;\d+;\d+;48;2;\d+;\d+;\d+m▀", shown)
        assert re.search(r"step \d+/\d+  rank \d+/20  \d+ of 16 drawn", shown)
        terminal.resize(40, 130)
        grown = terminal.wait_for(r"\x1b\[2J.*step").rpartition("\x1b[2J")[2]
        assert max(columns(grown)) > 79, "it grows with the terminal"
    assert terminal.end() == 0
    after = terminal.text.rpartition(LEAVE)[2]
    assert "▀" in after, "the pictures stay"
    assert after.rstrip().endswith("x-15.png")
    assert terminal.text.count(ENTER) == terminal.text.count(LEAVE) == 1


def columns(text: str) -> list[int]:
    return [line.count("▀") for line in re.split(r"\x1b\[\d+;1H", text)]


@pytest.mark.parametrize(
    ("environment", "pattern", "absent"),
    [({}, r"\x1b\[38;5;\d+;48;5;\d+m▀", "38;2;"), ({"NO_COLOR": "1", "COLORTERM": "truecolor"}, r"x\.png", "▀"),
     ({"TERM": "dumb"}, r"x\.png", "▀")],
    ids=["256", "no color", "dumb"],
)  # fmt: skip
def test_colours_are_as_the_terminal_has_them(
    live: LiveServer, tmp_path: Path, environment: dict[str, str], pattern: str, absent: str
) -> None:
    words = ["generate", "a red circle", *WISH, "--url", live.url, "-o", str(tmp_path / "x.png")]
    terminal = Terminal(words, **environment)
    assert terminal.end() == 0
    assert re.search(pattern, terminal.text)
    assert absent not in terminal.text


@pytest.mark.parametrize("paint", ["24bit", "256", "never"])
def test_painting_can_be_chosen(runner: CliRunner, paint: str) -> None:
    result = run(runner, "generate", "a red circle", *WISH, "--paint", paint)
    assert ("38;2;" in result.stdout, "38;5;" in result.stdout) == (paint == "24bit", paint == "256")
    assert result.stdout.endswith("out.png\n")


def test_what_is_no_terminal_gets_no_painting(runner: CliRunner) -> None:
    assert run(runner, "generate", "a red circle", *WISH).stdout == "out.png\n"


@pytest.mark.running
@pytest.mark.parametrize("how", ["key", "signal"])
def test_an_interrupt_cancels_the_job_and_restores_the_cursor(slow: LiveServer, tmp_path: Path, how: str) -> None:
    with slow.held(3):
        terminal = Terminal(long_words(slow.url, tmp_path / "x.png"), COLORTERM="truecolor")
        terminal.wait_for(r"rank \d+/20")
        (job_id,) = active_jobs(slow)
        if how == "key":
            terminal.press("\x03")
        else:
            terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 130
        assert terminal.text.rstrip().endswith("canceled")
        assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")
        assert not (tmp_path / "x-0.png").exists()
        wait_for(lambda: slow.client.get(f"/v1/generations/{job_id}").json()["status"] == "canceled")


@pytest.mark.running
def test_an_interrupt_here_stops_at_once(weights_dir: Path, tmp_path: Path) -> None:
    words = ["generate", "a red circle", "-n", "16", "--steps", "20", "--guidance", "3", "-o", str(tmp_path / "x.png")]
    gate = Gate(tmp_path / "gate")
    gate.close(3)
    environment = {**gate.environment, "OAR_WEIGHTS_DIR": str(weights_dir), "OAR_SLOTS": "2"}
    terminal = Terminal(words, "tests.server.gated", COLORTERM="truecolor", **environment)
    terminal.wait_for(r"rank \d+/20")
    terminal.press("\x03")
    terminal.wait_for(re.escape(LEAVE))
    gate.allow(1)  # the step that is under way ends, and no other is begun
    assert terminal.end() == 130
    assert terminal.text.rstrip().endswith("canceled")


@pytest.mark.running
def test_who_waits_sees_the_place_in_the_queue(slow: LiveServer, tmp_path: Path) -> None:
    wait_for(lambda: slow.submit()["eta"] is not None)  # the worker has told how long a step takes
    slow.wait_until_idle()
    long = {"n": 16, "steps": NUM_TOKENS, "guidance": 3.0}
    words = ["generate", "a red circle", *WISH, "--url", slow.url, "-o", str(tmp_path / "x.png")]
    with slow.held():
        ahead = [slow.submit(**long)["id"] for _ in range(4)]
        terminal = Terminal(words, COLORTERM="truecolor")
        terminal.wait_for(r"queued, [1-4] ahead, about \d+\.\d s")
        for job_id in ahead:
            slow.client.delete(f"/v1/generations/{job_id}")
    assert terminal.end() == 0


@pytest.mark.running
def test_a_failed_job_is_told_and_the_terminal_restored(slow: LiveServer, tmp_path: Path) -> None:
    with slow.held(3):
        terminal = Terminal(long_words(slow.url, tmp_path / "x.png"), COLORTERM="truecolor")
        terminal.wait_for(r"rank \d+/20")
        (job_id,) = active_jobs(slow)
        slow.client.delete(f"/v1/generations/{job_id}")
        assert terminal.end() == 1
    assert terminal.text.rpartition(LEAVE)[2].strip() == "Error: the job was canceled"


def active_jobs(server: LiveServer) -> list[str]:
    """Ids of the jobs that wait or run there."""
    command = [sys.executable, "-m", "oar_cli", "jobs", "list", "--json"]
    environment = {**server._environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [job["id"] for job in json.loads(done.stdout)]


def test_pictures_are_read_back_from_what_was_painted(runner: CliRunner) -> None:
    """The finished picture on the terminal is the picture, enlarged."""
    result = run(runner, "generate", "a red circle", *WISH, "--paint", "24bit")
    left = result.stdout.rpartition(LEAVE)[2]
    lines = [pixels_of(line) for line in left.splitlines() if "▀" in line]
    rows = [row for line in lines for row in zip(*line)]
    with Image.open("out.png") as picture:
        grown = picture.convert("RGB").resize((len(rows[0]), len(rows)), Image.Resampling.NEAREST)
    assert grown.size[0] % 20 == grown.size[1] % 16 == 0
    assert [[grown.getpixel((x, y)) for x in range(grown.width)] for y in range(grown.height)] == [
        list(row) for row in rows
    ]


def pixels_of(line: str) -> list[tuple[Any, Any]]:
    """The upper and the lower pixel of each cell of a line in 24-bit colours."""
    cells: list[tuple[Any, Any]] = []
    for code, blocks in re.findall(r"\x1b\[([\d;]+)m(▀+)", line):
        numbers = [int(number) for number in code.split(";")]
        cells += [(tuple(numbers[2:5]), tuple(numbers[7:10]))] * len(blocks)
    return cells


def test_the_nearest_class_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_golden_model("arpg", tmp_path / "arpg")
    write_manifest(tmp_path, "arpg", {"arpg": "MIT"})
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"OAR_WEIGHTS_DIR": str(tmp_path)})
    near = runner.invoke(main, ["generate", "goldfsh"])
    assert near.exit_code == 0
    assert "warning: no class has that name; this is the nearest, 'goldfish'" in near.stderr
    assert "warning" not in runner.invoke(main, ["generate", "goldfish"]).stderr
