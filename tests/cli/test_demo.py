"""The demo: what is cut off leaves nothing behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmsanitator.cli.demo import story
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CheckpointError, OutputError

_WAITS = """
import os, signal, sys
from pathlib import Path
from lmsanitator import cli
from lmsanitator.cli.demo import story

story.minilm = lambda: Path()
story.FrozenEncoder.open = lambda path: os.kill(os.getpid(), signal.SIGTERM)
cli.main(["demo", "-o", sys.argv[1]])
"""


@pytest.mark.parametrize("end", [KeyboardInterrupt, CheckpointError("expected more")], ids=str)
def test_half_a_demo_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException | type[BaseException]
) -> None:
    def stop(path: Path) -> FrozenEncoder:
        assert (tmp_path / "demo").is_dir()
        raise end

    monkeypatch.setattr(story, "minilm", Path)
    monkeypatch.setattr(FrozenEncoder, "open", stop)
    with pytest.raises(type(end) if isinstance(end, BaseException) else end):
        story.run_demo(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_a_terminated_demo_is_taken_away_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WAITS, str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own
    assert done.returncode == 128 + signal.SIGINT, done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^expected a new directory"):
        story.run_demo(tmp_path)
    assert tmp_path.is_dir()
