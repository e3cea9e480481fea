"""The command `report`: any stored scan in, one file or stdout out, one line for what is no scan."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.scans import CASES, bank, bank_path, scan, store

Run = Callable[..., tuple[int, str, str]]
FORMATS = ("json", "sarif", "html", "md", "model-card")


@pytest.mark.parametrize("kind", FORMATS)
def test_stdout_and_a_file_hold_the_same(kind: str, tmp_path: Path, run: Run) -> None:
    path, out = store(tmp_path, CASES["scripts"]), tmp_path / "out"
    code, text, err = run("report", path, "--format", kind)
    assert (code, err) == (0, "")
    assert run("report", path, "--format", kind, "-o", "-") == (0, text, "")
    out.write_text("of yesterday", encoding="utf-8")
    assert run("report", path, "--format", kind, "-o", out) == (0, "", "")
    assert out.read_text(encoding="utf-8") == text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "scan.json", "scan.pvs.safetensors"]


def test_a_missing_bank_is_said_on_stderr(tmp_path: Path, run: Run) -> None:
    path = store(tmp_path, CASES["one"])
    bank_path(path).unlink()
    code, out, err = run("report", path, "--format", "sarif")
    assert (code, err.count("\n")) == (0, 1)
    assert "missing" in err
    assert json.loads(out)["version"] == "2.1.0"


def test_a_bank_of_another_model_or_none_at_all_is_exit_2(tmp_path: Path, run: Run) -> None:
    path = store(tmp_path, CASES["one"])
    bank(1, "f" * 64).save(bank_path(path))
    code, out, err = run("report", path, "--format", "md")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "expected the bank of encoder" in err
    bank_path(path).write_bytes(b"no bank")
    code, out, err = run("report", path, "--format", "md")
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b"\xff\xfe",
        json.dumps({**json.loads(scan().to_json()), "schema": "lmsanitator.scan/2"}).encode(),
        json.dumps({**json.loads(scan().to_json()), "\x1b[2J\u202e": 1}).encode(),
        scan().to_json().replace("0.42", "NaN").encode(),
        scan().to_json().replace('"level": 0.01', '"level": NaN').encode(),
        scan().to_json().replace("some/model", "\\ud800").encode(),
    ],
    ids=[
        "empty",
        "no json",
        "a list",
        "no UTF-8",
        "another version",
        "a hostile name",
        "NaN",
        "NaN deep inside",
        "half a character",
    ],
)
def test_what_is_no_scan_is_one_line_and_exit_2(content: bytes, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "scan.json"
    path.write_bytes(content)
    code, out, err = run("report", path, "--format", "html", "-o", tmp_path / "out.html")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("lmsanitator: expected ")
    assert err.strip().isprintable()
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_are_refused(tmp_path: Path, run: Run) -> None:
    path = store(tmp_path, CASES["one"])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for place, expected in ((tmp_path, 2), (tmp_path / "no" / "out", 2), (path, 4), (bank_path(path), 4)):
        code, out, err = run("report", path, "--format", "html", "-o", place)
        assert (code, out, err.count("\n")) == (expected, "", 1)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("arguments", "says"), [([], "format"), (["--format", "pdf"], "model-card")])
def test_a_format_has_to_be_named(arguments: list[str], says: str, tmp_path: Path, run: Run) -> None:
    code, out, err = run("report", store(tmp_path, CASES["one"]), *arguments)
    assert (code, out) == (4, "")
    assert says in err
