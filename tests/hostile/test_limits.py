"""Bombs against a process that has little memory and little time: the limits hold without the tests' own machinery."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import configs, headers, pickles, tensors, tokenizers
from tests.hostile.case import Case

GIBIBYTES = 6  # of address space: torch and transformers map about four
SECONDS = 60  # for starting Python, most of it
BOMBS = {
    "sparse file": (headers.CASES, "a sparse terabyte"),
    "header": (headers.CASES, "a header of spaces"),
    "tensors": (headers.CASES, "more tensors than any model has"),
    "layers": (configs.CASES, "a million layers"),
    "width": (configs.CASES, "a hidden size of a billion"),
    "weights": (tensors.CASES, "more weights than memory"),
    "regular expression": (tokenizers.CASES, "a repeat inside a repeat, normalizing"),
    "text": (tokenizers.CASES, "steps that double the text"),
    "frame": (tokenizers.CASES, "a frame of one token of many ids"),
    "archive": (pickles.CASES, "an archive that swells"),
}


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES * 2**30,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS,) * 2)


def find(cases: list[Case], name: str) -> Case:
    return next(case for case in cases if case.name == name)


@pytest.mark.skipif(sys.platform == "darwin", reason="limits of address space do not hold there")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_ends_a_small_process_with_the_documented_code(
    bomb: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    case = find(*BOMBS[bomb])
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    case.build(folder)
    command = [sys.executable, "-c", "from lmsanitator.cli import main; main()", "scan", str(folder), *case.options]
    done = subprocess.run(  # noqa: S603 - our own command
        command,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        preexec_fn=limit,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (case.code, ""), done.stderr
    assert case.says in done.stderr
    assert done.stderr.count("\n") == 1
