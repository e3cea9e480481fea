"""Bombs against a process that has little memory and little time: the limits hold without the tests' own machinery."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import configs, headers, pickles, tensors, tokenizers
from tests.hostile.case import Case

GIBIBYTES = 6  # of address space: torch and transformers map about four
SECONDS = 120  # for starting Python, most of it
BOMBS = [
    (headers.CASES, "a sparse terabyte"),
    (headers.CASES, "a header of spaces"),
    (headers.CASES, "more tensors than any model has"),
    (configs.CASES, "a million layers"),
    (configs.CASES, "a hidden size of a billion"),
    (tensors.CASES, "more weights than memory"),
    (tokenizers.CASES, "a repeat inside a repeat, normalizing"),
    (tokenizers.CASES, "steps that double the text"),
    (tokenizers.CASES, "a frame of one token of many ids"),
    (pickles.CASES, "code in pytorch_model.bin"),
]


LITTLE = """
import resource, sys
from lmsanitator.cli import main
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
for folder in sys.argv[2:]:
    try:
        main(["scan", folder])
    except SystemExit as stop:
        print(stop.code, flush=True)
"""


def find(cases: list[Case], name: str) -> Case:
    return next(case for case in cases if case.name == name)


@pytest.mark.skipif(sys.platform == "darwin", reason="limits of address space do not hold there")
def test_bombs_end_with_the_documented_code_where_memory_is_little(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    cases = [find(*where) for where in BOMBS]
    folders = [shutil.copytree(checkpoints["bert"], tmp_path / str(number)) for number in range(len(cases))]
    for case, folder in zip(cases, folders, strict=True):
        case.build(folder)
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", LITTLE, str(GIBIBYTES * 2**30), *map(str, folders)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert done.stdout.split() == [str(case.code) for case in cases], done.stderr
    for case, line in zip(cases, done.stderr.splitlines(), strict=True):
        assert case.says in line
