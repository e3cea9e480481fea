"""`scan --resume` on the command line: what was cut off goes on, nothing is left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lmsanitator.cli.scan import journals
from tests.planted import save_bert

Run = Callable[..., tuple[int, str, str]]


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_says_how_to_go_on_and_going_on_sweeps_no_more(
    tmp_path: Path, cache: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert journals().is_relative_to(cache)
    save_bert(tmp_path)
    command = ("scan", tmp_path, "--effort", "quick", "--site", "cls")
    with monkeypatch.context() as patched:
        patched.setattr("lmsanitator.detect.words.look_again", stop)
        code, _, err = run(*command)
    assert code == 130
    assert "the same command with --resume goes on from here" in err
    assert [path.name for path in journals().glob("*/*")] == ["sweep.safetensors"]
    with monkeypatch.context() as patched:
        patched.setattr("lmsanitator.detect.words.sweep", stop)
        assert run(*command, "--resume")[0] == 0
    assert list(journals().iterdir()) == []
