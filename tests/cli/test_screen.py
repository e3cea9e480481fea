"""What a person sees, and what they can turn off."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lmsanitator.cli import screen

Run = Callable[..., tuple[int, str, str]]
SGR = re.compile(r"\x1b\[([0-9;]*)m")


@pytest.fixture
def checkpoint(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose scan reports two steps and then finds nothing it can judge."""
    from lmsanitator.errors import UnsupportedError

    def scan(source: str, config: object, *, progress: Callable[[str, float], None], **_: object) -> None:
        for what, done in (("sweeping", 0.5), ("sweeping", 1.0), ("mining", 0.1)):
            progress(what, done)
        raise UnsupportedError("nothing to judge")

    monkeypatch.setattr("lmsanitator.detect.scan", scan)
    return checkpoints["bert"]


def test_a_pipe_hears_nothing_but_errors_unless_asked(checkpoint: Path, run: Run) -> None:
    for options in ((), ("-q",), ("--quiet",)):
        assert run("scan", checkpoint, *options) == (3, "", "lmsanitator: nothing to judge\n")


def test_verbose_writes_a_line_for_each_step(checkpoint: Path, run: Run) -> None:
    code, out, err = run("scan", checkpoint, "-v")
    assert (code, out) == (3, "")
    assert [line.split()[-1] for line in err.splitlines()] == ["sweeping", "mining", "judge"]
    assert re.match(r"lmsanitator: +\d+\.\d s +sweeping$", " ".join(err.splitlines()[0].split()))
    assert run("scan", checkpoint)[2] == "lmsanitator: nothing to judge\n"  # and does not stay on


def test_quiet_and_verbose_exclude_each_other_where_they_come_from_the_same_place(
    checkpoint: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("scan", checkpoint, "-q", "-v")[0] == 4
    monkeypatch.setenv("LMSANITATOR_SCAN_QUIET", "1")
    assert "sweeping" in run("scan", checkpoint, "-v")[2]
    assert "sweeping" not in run("scan", checkpoint)[2]


def test_a_terminal_sees_the_step_how_much_is_done_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    terminal = Console(force_terminal=True, width=100, record=True, get_time=lambda: now[0])
    monkeypatch.setattr(screen, "messages", terminal)
    screen.speak(quiet=False, verbose=False)
    with screen.progress() as progress:
        for step in ("waiting", "sweeping"):  # the second is ten times as slow: the first must not count for it
            for done in (0.1, 0.2, 0.3):
                now[0] += 10.0 if step == "sweeping" else 1.0
                progress(step, done)
        due = time.monotonic() + 10
        while "30% 0:00:33 0:01:10 left" not in terminal.export_text(clear=False):  # drawn ten times a second
            assert time.monotonic() < due, terminal.export_text()
            time.sleep(0.05)


def test_a_quiet_terminal_sees_no_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Console(force_terminal=True, stderr=True)
    monkeypatch.setattr(screen, "messages", terminal)
    screen.speak(quiet=True, verbose=False)
    with screen.progress() as progress:
        progress("sweeping", 0.5)
    assert capsys.readouterr() == ("", "")


def test_a_note_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen.speak(quiet=False, verbose=False)
    screen.note("one\ntwo\x1b[2J")
    assert capsys.readouterr().err == "lmsanitator: one two?[2J\n"


def in_a_shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.argv[0] = 'lmsanitator'; from lmsanitator.cli import main; main()"
    return subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )


def colours(text: str) -> list[str]:
    """Codes that set a colour; 1 is bold, 2 dim, 3 italic, 0 the end."""
    return [code for codes in SGR.findall(text) for code in codes.split(";") if code not in ("", "0", "1", "2", "3")]


def test_no_color_is_followed() -> None:
    coloured = in_a_shell("scan", "no/such/model", FORCE_COLOR="1", NO_COLOR="")
    assert coloured.returncode == 2
    assert colours(coloured.stderr)
    plain = in_a_shell("scan", "no/such/model", FORCE_COLOR="1", NO_COLOR="1")
    assert plain.returncode == 2
    assert colours(plain.stderr) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_offered_a_completion(shell: str) -> None:
    done = in_a_shell("--show-completion", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1", SHELL=f"/bin/{shell}")
    script = in_a_shell(_LMSANITATOR_COMPLETE=f"source_{shell}")
    assert "_LMSANITATOR_COMPLETE" in script.stdout, done


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("lmsanitator sc", ["scan"]),
        ("lmsanitator scan --eff", ["--effort"]),
        ("lmsanitator scan --effort ", ["quick", "standard", "deep"]),
        ("lmsanitator report --format mo", ["model-card"]),
    ],
)
def test_commands_options_and_choices_are_completed(typed: str, offered: list[str]) -> None:
    done = in_a_shell(
        _LMSANITATOR_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split(" ")) - 1)
    )
    assert done.stdout.split() == offered
