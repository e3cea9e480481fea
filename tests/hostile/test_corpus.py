"""Every hostile checkpoint: the documented exit code, one clear line, bounded time and memory, no code run, nothing
left behind, no other file read, no connection made."""

import contextlib
import faulthandler
import importlib.util
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmsanitator.cli import main
from lmsanitator.encoder import FrozenEncoder
from tests.hostile import adapters, configs, headers, paths, pickles, tensors, tokenizers
from tests.hostile.case import Case, canary
from tests.hostile.watch import Watch

FAMILIES = {
    "header": headers.CASES,
    "tensors": tensors.CASES,
    "config": configs.CASES,
    "tokenizer": tokenizers.CASES,
    "pickle": pickles.CASES,
    "path": paths.CASES,
    "adapter": adapters.CASES,
}
CORPUS = {f"{family}: {case.name}": case for family, cases in FAMILIES.items() for case in cases}
SECONDS = 10  # of computing: what else the machine does is no concern here
MEBIBYTES = 192  # a tokenizer.json of 64 MiB may be read; nothing may take more than a few times that


@pytest.fixture(scope="module")
def watch(checkpoints: dict[str, Path]) -> Watch:
    """The hook, once all that opening and scanning import is imported."""
    for folder in checkpoints.values():
        FrozenEncoder.open(folder)
    with pytest.raises(SystemExit):
        main(["scan", ""])
    return Watch()


@pytest.fixture
def folder(checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound BERT checkpoint to break; temporary files are made beside it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")


@pytest.fixture(autouse=True)
def _no_endless_case() -> Iterator[None]:
    faulthandler.dump_traceback_later(6 * SECONDS, exit=True)  # a regular expression cannot be interrupted
    yield
    faulthandler.cancel_dump_traceback_later()


def forget_peak() -> None:
    """From now on the peak is of what comes, not of what earlier tests took: Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """The most memory this process has had, in MiB, since it was forgotten or started."""
    with contextlib.suppress(OSError):
        [kibibytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(kibibytes) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a peak cannot be forgotten here")
def test_the_memory_of_a_case_is_its_own() -> None:
    bytearray(2 * MEBIBYTES * 2**20)
    forget_peak()
    before = peak()
    bytearray(MEBIBYTES * 2**20)
    assert peak() - before > MEBIBYTES / 2


def everything(place: Path) -> list[str]:
    return sorted(map(str, place.rglob("*")))


def scan(folder: Path, case: Case) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as stop:
        main(["scan", str(folder), *case.options])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_checkpoint_is_one_line_and_nothing_else(
    name: str, folder: Path, watch: Watch, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CORPUS[name]
    if "--allow-pickle" in case.options and importlib.util.find_spec("picklescan") is None:
        pytest.skip("needs picklescan (the pickle extra)")
    case.build(folder)
    forget_peak()
    before, most = everything(folder.parent), peak()
    started, code = time.process_time(), 0
    with watch.on(folder):
        if case.code is None:
            FrozenEncoder.open(folder, allow_pickle=bool(case.options))
        else:
            code = scan(folder, case)
    took, grown = time.process_time() - started, peak() - most
    out, err = capfd.readouterr()  # of the process, not of Python alone: a library in Rust writes past it
    assert watch.seen == []
    assert not canary(folder).exists()
    assert everything(folder.parent) == before
    assert took < SECONDS
    assert grown < MEBIBYTES
    if case.code is None:
        assert (out, err) == ("", "")
    else:
        assert (code, out) == (case.code, ""), err
        assert err.startswith("lmsanitator: expected ")
        assert err.count("\n") == 1
        assert case.says in err
        assert len(err) < 1000
        assert err.strip().isprintable()


def test_the_corpus_has_no_two_cases_of_one_name() -> None:
    assert len(CORPUS) == sum(map(len, FAMILIES.values())) >= 50
