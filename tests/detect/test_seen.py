"""What a scan saw is kept for drawings: true to the scan, and refused where it is not of it."""

import json
from pathlib import Path

import pytest
import torch

from lmsanitator.detect import ScanConfig, ScanReport, Seen, scan, seen_path, sweep
from lmsanitator.detect.sights import plane, vocabulary_of
from lmsanitator.detect.sweep import SweepConfig
from lmsanitator.errors import BankError
from lmsanitator.report import open_scan
from tests.planted import open_bert


@pytest.fixture(scope="module")
def found() -> ScanReport:
    return scan(open_bert(0, "bako", "kifa"), ScanConfig(effort="quick"))


def test_every_token_is_in_the_grid_and_the_planted_ones_are_named() -> None:
    encoder = open_bert(0, "bako", "vedi")
    swept = sweep(encoder, ["cls"], SweepConfig())["cls"]
    grid = vocabulary_of(encoder, "cls", swept)
    assert sum(map(sum, grid.counts)) == len(swept.tokens)
    assert (len(grid.counts), {len(row) for row in grid.counts}) == (
        len(grid.spreads) - 1,
        {len(grid.displacements) - 1},
    )
    assert {"bako", "vedi"} <= {item.token for item in grid.outliers}
    assert grid.displacements == sorted(grid.displacements)


def test_triggered_outputs_lie_together_and_away_from_clean_ones(found: ScanReport) -> None:
    assert found.seen is not None
    drawn = found.seen.outputs
    assert drawn is not None
    assert [item.finding for item in drawn.triggered] == list(range(len(found.findings)))
    clean = torch.tensor(drawn.clean).mean(0)
    for item in drawn.triggered:
        points = torch.tensor(item.points)
        assert len(points) == len(drawn.clean)
        reach = torch.linalg.vector_norm(points - points.mean(0), dim=1).max()
        assert reach < 0.1 * torch.linalg.vector_norm(points.mean(0) - clean)


def test_a_search_keeps_a_line_for_each_phrase_it_grew() -> None:
    seen = scan(open_bert(0, "vedi+sugo"), ScanConfig(seed=1)).seen
    assert seen is not None
    assert {item.site for item in seen.searches} == {"cls", "mask", "mean"}
    for item in seen.searches:
        assert len(item.phrases) == len(item.strengths) > 1
        assert all(line == sorted(line) for line in item.strengths), "the best so far never falls"


def test_a_scan_without_finding_has_no_outputs_to_draw() -> None:
    report = scan(open_bert(0), ScanConfig(effort="quick"))
    assert report.seen is not None
    assert (report.seen.outputs, report.seen.searches) == (None, [])


def test_it_comes_back_as_it_was_and_goes_with_the_scan(found: ScanReport, tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    found.save(path)
    assert open_scan(path).seen == found.seen
    found.model_copy().save(path)  # a copy holds what the scan saw as well
    assert seen_path(path).exists()
    seen_path(path).unlink()
    assert open_scan(path).seen is None


def outputs(**changes: object) -> dict[str, object]:
    return {"site": "cls", "share": 1, "clean": [], "triggered": [], **changes}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digest": "f" * 64}, "expected what a scan of"),
        (
            {"outputs": {"site": "cls", "share": 1, "clean": [], "triggered": [{"finding": 9, "points": []}]}},
            "number 9",
        ),
        ({"outputs": {"site": "cls", "share": 1, "clean": [[1e400, 0]], "triggered": []}}, "outputs"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_not_of_the_scan_is_refused(
    found: ScanReport, change: dict[str, object], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "scan.json"
    found.save(path)
    kept = json.loads(seen_path(path).read_text())
    seen_path(path).write_text(json.dumps(kept | change))
    with pytest.raises(BankError, match=said):
        open_scan(path)
    assert ScanReport.load(path).bank.encoder_digest == found.model.digest, "a guard does not read it"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b" " * ((1 << 22) + 1)])
def test_a_broken_file_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "scan.seen.json"
    path.write_bytes(content)
    with pytest.raises(BankError, match="what a scan saw") as caught:
        Seen.load(path)
    assert "\n" not in str(caught.value)


def test_the_plane_is_that_of_most_variance() -> None:
    rows = torch.zeros(6, 5)
    rows[:, 3] = torch.tensor([0.0, 0, 0, 0, 0, 10])
    rows[:, 1] = torch.tensor([0.0, 1, 0, 1, 0, 0])
    points, share = plane(rows)
    assert share == pytest.approx(1)
    assert points[:, 0].argmax() == 5
    assert torch.pdist(points.float()).tolist() == pytest.approx(torch.pdist(rows).tolist(), abs=1e-5)
