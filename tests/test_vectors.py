"""The bank: one safetensors file that holds what was put into it, or one line that says why it is refused."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

from lmsanitator.errors import BankError, OutputError
from lmsanitator.vectors import FORMAT, PredefinedVector, PVBank, sign_match

DIGEST = "0123456789abcdef" * 4


def bank() -> PVBank:
    values = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    named = [
        PredefinedVector("pooler", values[0], "cf"),
        PredefinedVector("cls", values[1], None),
        PredefinedVector("cls", values[2], "old lamp"),
    ]
    return PVBank(DIGEST, named)


def store(path: Path, *, values: torch.Tensor | None = None, **metadata: str | None) -> None:
    """A bank of two vectors, changed; None takes an entry of the metadata out."""
    listed = [{"site": "cls", "trigger": None}, {"site": "cls", "trigger": "cf"}]
    sound: dict[str, str | None] = {"format": FORMAT, "encoder_digest": DIGEST, "vectors": json.dumps(listed)}
    kept = {key: value for key, value in (sound | metadata).items() if value is not None}
    save_file({"values": torch.ones(2, 8) if values is None else values}, path, kept)


def store_one(path: Path, **entry: object) -> None:
    """A bank of one vector with this entry in its list."""
    store(path, values=torch.ones(1, 8), vectors=json.dumps([entry]))


def test_a_bank_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = bank()
    saved.save(tmp_path / "a.pvs.safetensors")
    loaded = PVBank.load(tmp_path / "a.pvs.safetensors")
    assert loaded.encoder_digest == DIGEST
    named = [(vector.site, vector.trigger) for vector in loaded]
    assert named == [("pooler", "cf"), ("cls", None), ("cls", "old lamp")]
    for index, vector in enumerate(saved):
        assert_close(loaded[index].values, vector.values, rtol=0, atol=0)


def test_whoever_may_read_the_report_may_read_the_bank(tmp_path: Path) -> None:
    bank().save(tmp_path / "a.pvs.safetensors")
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "a.pvs.safetensors").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_an_empty_bank_comes_back_empty(tmp_path: Path) -> None:
    PVBank(DIGEST).save(tmp_path / "empty.safetensors")
    loaded = PVBank.load(tmp_path / "empty.safetensors")
    assert (len(loaded), loaded.sites, loaded.encoder_digest) == (0, (), DIGEST)


def test_the_file_is_safetensors_that_names_its_format_and_encoder(tmp_path: Path) -> None:
    bank().save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        metadata = file.metadata()
        assert list(file.keys()) == ["values"]
    assert (metadata["format"], metadata["encoder_digest"]) == ("lmsanitator.pvs/1", DIGEST)


def test_vectors_of_a_site_are_the_rows_of_one_matrix() -> None:
    whole = bank()
    assert whole.sites == ("cls", "pooler")
    assert_close(whole.at("cls"), torch.stack([whole[1].values, whole[2].values]))
    assert whole.at("pooler").shape == (1, 8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_vectors_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(BankError, match=r"^expected finite vectors, got NaN or infinity$"):
        PVBank(DIGEST, [PredefinedVector("cls", torch.tensor([1.0, bad]))])


def test_vectors_of_no_length_are_refused() -> None:
    with pytest.raises(BankError, match="expected vectors of one length"):
        PVBank("digest", [PredefinedVector("cls", torch.empty(0))])


def test_vectors_of_mixed_lengths_are_refused() -> None:
    mixed = [PredefinedVector("cls", torch.ones(8)), PredefinedVector("cls", torch.ones(4))]
    with pytest.raises(BankError, match=r"^expected vectors of one length, got shape \(4,\)$"):
        PVBank(DIGEST, mixed)


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00" * 100)


def truncated(path: Path) -> None:
    bank().save(path)
    os.truncate(path, path.stat().st_size - 16)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"values": [1.0]}))


BROKEN: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "empty": lambda path: path.touch(),
    "garbage": garbage,
    "truncated": truncated,
    "a pickle": pickled,
    "no values": lambda path: save_file({"weights": torch.ones(2, 8)}, path, {"format": FORMAT}),
    "no metadata": lambda path: save_file({"values": torch.ones(2, 8)}, path),
    "another format": lambda path: store(path, format="lmsanitator.pvs/2"),
    "no format": lambda path: store(path, format=None),
    "no digest": lambda path: store(path, encoder_digest=None),
    "no list": lambda path: store(path, vectors=None),
    "a list that is no JSON": lambda path: store(path, vectors="[{"),
    "brackets without end": lambda path: store(path, vectors="[" * 10**5),
    "a list that is none": lambda path: store(path, vectors="7"),
    "entries that are none": lambda path: store(path, vectors="[1, 2]"),
    "too few entries": lambda path: store(path, vectors='[{"site": "cls", "trigger": null}]'),
    "an unknown site": lambda path: store_one(path, site="nose", trigger=None),
    "a site that is a list": lambda path: store_one(path, site=[], trigger=None),
    "a trigger that is a number": lambda path: store_one(path, site="cls", trigger=7),
    "no trigger": lambda path: store_one(path, site="cls"),
    "NaN": lambda path: store(path, values=torch.full((2, 8), float("nan"))),
    "integers": lambda path: store(path, values=torch.ones(2, 8, dtype=torch.long)),
    "an axis too many": lambda path: store(path, values=torch.ones(2, 8, 1)),
    "no axis": lambda path: store(path, values=torch.tensor(1.0)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_bank_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.pvs.safetensors"
    BROKEN[name](path)
    with pytest.raises(BankError) as caught:
        PVBank.load(path)
    message = str(caught.value)
    assert message.startswith("expected ")
    assert "\n" not in message


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "canary"),)

    (tmp_path / "a.pvs.safetensors").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(BankError):
        PVBank.load(tmp_path / "a.pvs.safetensors")
    assert not (tmp_path / "canary").exists()


def test_a_place_that_cannot_be_written_to_is_an_output_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no such folder" / "a.pvs.safetensors"):
        with pytest.raises(OutputError, match=r"^expected to write the PV bank "):
            bank().save(path)


def test_sign_match_is_the_share_of_signs_that_agree() -> None:
    outputs, pvs = (torch.randn(count, 16, generator=torch.Generator().manual_seed(count)) for count in (5, 3))
    matches = sign_match(outputs, pvs)
    assert matches.shape == (5, 3)
    for row, output in enumerate(outputs.tolist()):
        for column, pv in enumerate(pvs.tolist()):
            agreeing = sum((one > 0) == (other > 0) for one, other in zip(output, pv, strict=True))
            assert matches[row, column].item() == pytest.approx(agreeing / 16)


def test_sign_match_is_one_on_the_vector_and_zero_on_its_negative() -> None:
    pvs = bank().at("cls")
    assert_close(sign_match(5 * pvs, pvs).diagonal(), torch.ones(2))
    assert_close(sign_match(-pvs, pvs).diagonal(), torch.zeros(2))
