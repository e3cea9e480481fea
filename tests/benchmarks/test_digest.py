"""Digests change with whatever a result was made by."""

from pathlib import Path

import pytest

from benchmarks import digest


def test_code_and_data_of_a_room_count_and_what_python_leaves_there_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(digest, "_SOURCE", tmp_path)
    data, code = tmp_path / "text" / "words" / "en.txt", tmp_path / "text" / "words.py"
    data.parent.mkdir(parents=True)
    (tmp_path / "text" / "__pycache__").mkdir()
    seen = []
    for path, written in ((code, "a"), (code, "b"), (data, "one"), (data, "two")):
        path.write_text(written, encoding="utf-8")
        seen.append(digest.code("text"))
    assert len(set(seen)) == len(seen)
    (tmp_path / "text" / "__pycache__" / "words.pyc").write_bytes(b"c")
    assert digest.code("text") == seen[-1]
    assert digest.code("text/words.py") != seen[-1]
