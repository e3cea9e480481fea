"""A scan that was killed says in the end what it would have said; what is kept is read back as it was."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lmsanitator.detect import ScanConfig, ScanReport, scan
from lmsanitator.detect.confirm import Suspect
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.journal import (
    Finds,
    Journal,
    Packed,
    pack_finds,
    pack_sweep,
    pack_words,
    unpack_finds,
    unpack_sweep,
    unpack_words,
)
from lmsanitator.detect.lexicon import Word
from lmsanitator.detect.scan import _key
from lmsanitator.detect.seen import Searched
from lmsanitator.detect.sweep import SweepResult
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.encoder.frozen import TokenMeter
from lmsanitator.errors import OutputError
from tests.planted import open_bert

ONE_SITE = ScanConfig(sites=("cls",))
STAGES = ["sweep", "dictionary", "phrases-0"]
"""Of a scan that finds nothing."""
_KILLED = """
import os, signal, sys
from pathlib import Path
from lmsanitator.detect.journal import Journal
from tests.detect.test_journal import ONE_SITE, scan
from tests.planted import open_bert

write = Journal._write
def killed(self, stage, *rest):
    if sys.argv[2] == "before " + stage:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, stage, *rest)
    if sys.argv[2] == "after " + stage:
        os.kill(os.getpid(), signal.SIGKILL)
Journal._write = killed
scan(open_bert(0), ONE_SITE, journals=Path(sys.argv[1]))
"""


def said(report: ScanReport) -> object:
    """All but what it cost, with what there is to draw."""
    return report.model_dump(exclude={"cost"}), report.seen


@pytest.fixture(scope="module")
def whole() -> ScanReport:
    return scan(open_bert(0), ONE_SITE)


@pytest.mark.parametrize("when", ["before sweep", "after sweep", "after dictionary", "after phrases-0"])
def test_a_killed_scan_resumes_to_the_same_report(tmp_path: Path, whole: ScanReport, when: str) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path), when]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    kept = STAGES[: STAGES.index(when.split()[1]) + (when.startswith("after"))]
    assert sorted(path.stem for path in tmp_path.glob("*/*.safetensors")) == sorted(kept)
    told: list[str] = []
    resumed = scan(
        open_bert(0), ONE_SITE, progress=lambda what, done: told.append(what), journals=tmp_path, resume=True
    )
    assert said(resumed) == said(whole)
    assert ("sweeping the vocabulary" in told) is ("sweep" not in kept)
    assert ("mining at cls" in told) is ("phrases-0" not in kept)
    assert resumed.cost.backward_tokens == whole.cost.backward_tokens
    assert resumed.cost.forward_tokens >= whole.cost.forward_tokens
    assert list(tmp_path.iterdir()) == []


def test_a_scan_that_ran_through_leaves_nothing_behind(tmp_path: Path, whole: ScanReport) -> None:
    report = scan(open_bert(0), ONE_SITE, journals=tmp_path)
    assert report.model_dump(exclude={"cost": {"seconds"}}) == whole.model_dump(exclude={"cost": {"seconds"}})
    assert list(tmp_path.iterdir()) == []


def interrupted(folder: Path, config: ScanConfig) -> None:
    """A scan that is stopped by hand when its sweep is done."""

    def stop(what: str, done: float) -> None:
        if what.startswith("looking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(open_bert(0), config, progress=stop, journals=folder)


@pytest.mark.parametrize("other", ["nothing", "seed", "level", "model", "anew", "damaged"])
def test_only_the_same_scan_is_gone_on_with_and_only_if_that_is_asked_for(tmp_path: Path, other: str) -> None:
    quick = ScanConfig(sites=("cls",), effort="quick")
    interrupted(tmp_path, quick)
    (kept,) = tmp_path.glob("*/sweep.safetensors")
    if other == "damaged":
        kept.write_bytes(kept.read_bytes()[:1000])
    told: list[str] = []
    report = scan(
        open_bert(1 if other == "model" else 0),
        replace(quick, seed=int(other == "seed"), level=0.02 if other == "level" else quick.level),
        progress=lambda what, done: told.append(what),
        journals=tmp_path,
        resume=other != "anew",
    )
    assert report.verdict == "clean"
    assert ("sweeping the vocabulary" in told) is (other != "nothing")


def test_a_scan_in_another_precision_or_with_another_tokenizer_is_another_scan() -> None:
    encoder, lower = open_bert(0), open_bert(0)
    assert _key(encoder, None, ONE_SITE) == _key(lower, None, ONE_SITE)
    lower.reduced = True
    assert _key(encoder, None, ONE_SITE) != _key(lower, None, ONE_SITE)
    other = open_bert(0, vocabulary=1999)
    same_weights = FrozenEncoder(encoder.model, other.tokenizer, precision="fp32")
    assert same_weights.digest == encoder.digest
    assert _key(encoder, None, ONE_SITE) != _key(same_weights, None, ONE_SITE)


def test_without_a_place_for_a_journal_a_scan_runs_and_cannot_be_resumed(tmp_path: Path, whole: ScanReport) -> None:
    file = tmp_path / "file"
    file.write_text("no folder", encoding="utf-8")
    assert said(scan(open_bert(0), ONE_SITE, journals=file)) == said(whole)
    with pytest.raises(OutputError, match="expected to keep a journal in"):
        scan(open_bert(0), ONE_SITE, journals=file, resume=True)
    assert file.read_text(encoding="utf-8") == "no folder"


def test_a_full_disk_ends_the_journal_and_not_the_scan(
    tmp_path: Path, whole: ScanReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmsanitator.detect.journal.save_file", full)
    assert said(scan(open_bert(0), ONE_SITE, journals=tmp_path)) == said(whole)
    assert list(tmp_path.iterdir()) == []


def test_journals_nobody_went_on_with_are_deleted_after_a_month(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        save_file({"pv": torch.zeros(1)}, folder / "sweep.safetensors")
    os.utime(old, (0, 0))
    Journal.open(tmp_path, "this", [], resume=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "this"]


def test_a_stage_is_found_once_and_its_cost_is_counted_each_time_it_is_read(tmp_path: Path) -> None:
    meter = TokenMeter()

    def find() -> int:
        meter.forward += 7
        meter.backward += 3
        return 5

    for run in range(3):
        journal = Journal.open(tmp_path, "a", [meter], resume=True)
        value = journal.once("stage", find, lambda found: Packed({}, found), lambda packed: int(packed.stated) * 1)
        assert (value, meter) == (5, TokenMeter(7 * (run + 1), 3 * (run + 1)))


def test_evidence_and_sweeps_are_read_back_bit_by_bit(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, "a", [], resume=True)
    pvs = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    suspects = [
        Suspect(Evidence("mask", (3, number), 0.1, 1 / 3, -2.5, 1.0, 0.9, pv, 11.7), None if number else -30.25)
        for number, pv in enumerate(pvs)
    ]
    tokens = torch.arange(3)  # the same tensor at each site, as the sweep has it
    swept: dict[Site, SweepResult] = {
        "cls": SweepResult(tokens, pvs[:, 0], pvs[:, 4], pvs[:, 1], tokens[:2]),
        "mean": SweepResult(tokens, pvs[:, 2], pvs[:, 4], pvs[:, 3], tokens[1:]),
    }
    searched = [Searched(site="mask", phrases=["a b"], strengths=[[1 / 3, 2.5]])]
    for found in (Finds(suspects, 17, searched), Finds([], 4, [])):
        stage = f"found-{found.candidates}"
        journal.once(stage, lambda found=found: found, pack_finds, unpack_finds)  # type: ignore[misc]
        again = journal.once(stage, lambda: Finds([], 0, []), pack_finds, unpack_finds)
        assert (again.candidates, again.searched) == (found.candidates, found.searched)
        pairs = list(zip(found.suspects, again.suspects, strict=True))
        assert all(one.log_p == two.log_p for one, two in pairs)
        assert all(vars(one.evidence) | {"pv": 0} == vars(two.evidence) | {"pv": 0} for one, two in pairs)
        assert all(torch.equal(one.evidence.pv, two.evidence.pv) for one, two in pairs)
    journal.once("sweep", lambda: swept, pack_sweep, unpack_sweep)
    read = journal.once("sweep", dict[Site, SweepResult], pack_sweep, unpack_sweep)
    assert list(read) == ["cls", "mean"]
    assert all(torch.equal(read[site].spread, swept[site].spread) for site in read)
    assert all(torch.equal(read[site].tokens, swept[site].tokens) for site in read)
    assert all(torch.equal(read[site].shortlist, swept[site].shortlist) for site in read)
    words: list[Word] = [(3, 4), (7, 8, 9)]
    journal.once("words", lambda: words, pack_words, unpack_words)
    assert journal.once("words", list[Word], pack_words, unpack_words) == words
