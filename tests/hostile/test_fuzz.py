"""Random damage to headers, configs and tokenizers: a checkpoint opens or is refused in one line, and nothing else."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmsanitator.encoder import open_checkpoint
from lmsanitator.encoder.headers import check_headers
from lmsanitator.errors import CheckpointError, LMSanitatorError
from tests.hostile.case import WEIGHTS
from tests.hostile.headers import packed

fuzz = settings(
    derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SIZES = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 32, 2**20, 2**31, 2**32, 2**63, 2**64, 10**30])
ODD = st.one_of(
    SIZES,
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.lists(SIZES, max_size=3),
    st.dictionaries(st.text(max_size=4), SIZES, max_size=2),
)
ABOUT = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "U8", "F8_E4M3", "C64", "", "f32"]) | ODD,
        "shape": st.lists(SIZES, max_size=4) | ODD,
        "data_offsets": st.tuples(st.integers(-1, 70), st.integers(-1, 70)) | ODD,
    },
    optional={"extra": ODD},
)


@pytest.fixture
def folder(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")


def refusal(call: Callable[[], object]) -> str | None:
    """The one line that a call is refused in, None where it is not; any other error comes through."""
    try:
        call()
    except LMSanitatorError as error:
        return str(error)
    return None


def opens_or_refuses(folder: Path) -> None:
    message = refusal(lambda: open_checkpoint(folder))
    assert message is None or is_one_line(message), message


def is_one_line(message: str) -> bool:
    return message.startswith("expected ") and "\n" not in message and len(message) < 1000


@fuzz
@given(header=st.dictionaries(st.text(max_size=5), ABOUT | ODD, max_size=4), data=st.binary(max_size=64))
def test_any_header_is_whole_or_refused(tmp_path: Path, header: dict[str, Any], data: bytes) -> None:
    file = tmp_path / WEIGHTS
    file.write_bytes(packed(header, data))
    message = refusal(lambda: check_headers([file]))
    assert message is None or is_one_line(message), message
    if message is None:
        assert check_headers([file]).values <= 8 * len(data)


@fuzz
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_as_weights(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / WEIGHTS
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"^expected "):
        check_headers([file])


@fuzz
@given(at=st.integers(0, 3000), bit=st.integers(0, 7))
def test_any_bit_of_a_header_may_flip(folder: Path, at: int, bit: int) -> None:
    sound = (folder / WEIGHTS).read_bytes()
    damaged = bytearray(sound)
    damaged[at] ^= 1 << bit
    (folder / WEIGHTS).write_bytes(damaged)
    try:
        opens_or_refuses(folder)
    finally:
        (folder / WEIGHTS).write_bytes(sound)


def _paths(value: Any, before: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where values are in JSON, without the entries of a vocabulary, which are all alike."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [before] if before else []
    for key, inner in list(items)[:20]:
        found += _paths(inner, (*before, key))
    return found


def _damaged(raw: Any, path: tuple[str | int, ...], value: object) -> Any:
    damaged = copy.deepcopy(raw)
    place = damaged
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return damaged


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@fuzz
@given(data=st.data())
def test_any_value_may_be_any_other(folder: Path, name: str, data: st.DataObject) -> None:
    sound = (folder / name).read_text(encoding="utf-8")
    raw = json.loads(sound)
    path = data.draw(st.sampled_from(_paths(raw)))
    (folder / name).write_text(json.dumps(_damaged(raw, path, data.draw(ODD))), encoding="utf-8")
    try:
        opens_or_refuses(folder)
    finally:
        (folder / name).write_text(sound, encoding="utf-8")


@fuzz
@given(changes=st.dictionaries(st.sampled_from([
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "type_vocab_size",
    "max_position_embeddings", "num_labels", "pad_token_id", "chunk_size_feed_forward", "hidden_act", "layer_norm_eps",
    "id2label", "dtype", "is_decoder", "use_cache", "tie_word_embeddings", "architectures", "rope_parameters",
]), ODD, max_size=4))  # fmt: skip
def test_any_config_is_read_or_refused(folder: Path, changes: dict[str, object]) -> None:
    path = folder / "config.json"
    sound = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(sound) | changes), encoding="utf-8")
    try:
        opens_or_refuses(folder)
    finally:
        path.write_text(sound, encoding="utf-8")
