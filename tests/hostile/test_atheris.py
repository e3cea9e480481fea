"""The fuzzing targets run: on a few bytes always, under atheris where it is installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.opening import TARGETS, guarded

SEEDS = [
    b"",
    b"{}",
    b"[",
    b'{"a": 1, "a": 2}',
    b'{"model_type": "bert"}',
    b"(a+)+",
    b"\xff" * 9,
    b"\x02" + bytes(7) + b"{}",
]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_any_bytes(name: str) -> None:
    refused = 0
    for seed in SEEDS:
        guarded(TARGETS[name])(seed)
        try:
            TARGETS[name](seed)
        except Exception:  # noqa: BLE001 - what it is, guarded() has checked
            refused += 1
    assert refused > 0, "a target that refuses nothing reads nothing"


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris, which is not for all systems")
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_of_atheris_finds_nothing(name: str, tmp_path: Path) -> None:
    places = os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, str(ROOT / "fuzz" / "opening.py"), name, "-runs=500", f"-artifact_prefix={tmp_path}/"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": places},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Done 500 runs" in done.stderr
