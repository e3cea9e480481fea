"""Sound files with weights that no encoder has."""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.hostile.case import WEIGHTS, Build, Case, config, edit_json, spread, tensors, then, write, write_json
from tests.hostile.headers import about, packed

WORDS = "embeddings.word_embeddings.weight"
DENSE = "encoder.layer.1.output.dense.weight"
TWIN = f"bert.{DENSE}"
OLD, NEW = "embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"
Held = dict[str, torch.Tensor]


def put(name: str, value: float) -> Build:
    def change(held: Held) -> None:
        held[name].view(-1)[0] = value

    return tensors(change)


def fill(value: float) -> Build:
    return tensors(lambda held: [weight.fill_(value) for weight in held.values()])


def retype(name: str, kind: torch.dtype) -> Build:
    def change(held: Held) -> None:
        held[name] = (100 * held[name]).to(kind)

    return tensors(change)


def retype_with_its_head(held: Held) -> None:
    """As language models are saved: every name has the encoder's before it."""
    for name in list(held):
        held[f"bert.{name}"] = held.pop(name)
    held[f"bert.{DENSE}"] = (100 * held[f"bert.{DENSE}"]).to(torch.int8)


def reshape(name: str, *shape: int) -> Build:
    return tensors(lambda held: held.update({name: torch.zeros(shape)}))


def overflow(held: Held) -> None:
    held[DENSE] = held[DENSE].double()
    held[DENSE][0, 0] = 1e300


def swell(held: Held) -> None:
    """Finite, each of them, and not once they are multiplied."""
    for name, weight in held.items():
        if name.endswith("LayerNorm.weight") or "query" in name:
            weight.fill_(3e38)


def forget_the_second_layer(held: Held) -> None:
    for name in [name for name in held if name.startswith("encoder.layer.1.")]:
        del held[name]


def rename_everything(held: Held) -> None:
    for name in list(held):
        held[f"x.{name}"] = held.pop(name)


def outgrow_the_machine(folder: Path) -> None:
    """A vocabulary that takes twice the memory, and its file, of which no block is on disk."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows = memory // (2 * 32) - 2**20  # the file just fits, in fp32 it would not
    (folder / WEIGHTS).write_bytes(packed({WORDS: about("F16", (rows, 32), (0, rows * 64))}))
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size + rows * 64)
    config(vocab_size=rows, num_hidden_layers=1)(folder)


def shrink_the_vocabulary(folder: Path) -> None:
    tensors(lambda held: held.update({WORDS: held[WORDS][:100].clone()}))(folder)
    config(vocab_size=100)(folder)


def repeat_in_two_shards(folder: Path) -> None:
    held = load_file(folder / WEIGHTS)
    for name in ("a.safetensors", "b.safetensors"):
        save_file(held, folder / name, {"format": "pt"})
    spread(folder, ["a.safetensors", "b.safetensors"])


def leave_one_shard_broken(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "a.safetensors")
    write("b.safetensors", b"PK\x03\x04")(folder)
    spread(folder, ["a.safetensors", "b.safetensors"])


CASES = [
    Case("a weight that is NaN", put(DENSE, float("nan")), f"finite weights, {DENSE}"),
    Case("a weight that is infinite", put(WORDS, float("-inf")), f"finite weights, {WORDS}"),
    Case("a weight beyond fp32", tensors(overflow), f"finite weights, {DENSE}"),
    Case("weights that are finite until multiplied", tensors(swell), "finite outputs"),
    Case("weights that are all zero", fill(0.0), "depend on the text"),
    Case("weights that are all one", fill(1.0), "depend on the text"),
    Case("weights stored as integers", retype(DENSE, torch.int64), f"floating-point weights, {DENSE}"),
    Case("weights stored as bytes", retype(WORDS, torch.uint8), f"floating-point weights, {WORDS}"),
    Case("weights stored as truth values", retype(DENSE, torch.bool), f"floating-point weights, {DENSE}"),
    Case(
        "weights stored as integers under a longer name", tensors(retype_with_its_head), f"point weights, bert.{DENSE}"
    ),
    Case("weights in eight bits", retype(DENSE, torch.float8_e4m3fn), f"floating-point weights, {DENSE}"),
    Case("a layer that is missing", tensors(forget_the_second_layer), "all weights of bert"),
    Case("no tensor at all", tensors(lambda held: held.clear()), "far more"),
    Case("tensors of other names", tensors(rename_everything), "all weights of bert"),
    Case("a weight of another shape", reshape(DENSE, 8, 8), "fit the config"),
    Case("a weight without dimensions", reshape(DENSE), "fit the config"),
    Case("more weights than memory", outgrow_the_machine, "fit into memory", code=3),
    Case("fewer rows than tokens", shrink_the_vocabulary, "100 rows"),
    Case("a weight under two names", tensors(lambda held: held.update({TWIN: held[DENSE] + 1})), "weight once"),
    Case("a weight under an old name", tensors(lambda held: held.update({OLD: held[NEW] + 1})), "weight once"),
    Case("a tensor in two shards", repeat_in_two_shards, "again"),
    Case("a shard that is broken", leave_one_shard_broken, "b.safetensors"),
    Case("an index of no shards", then(lambda folder: spread(folder, [])), "0 tensors"),
    Case(
        "an index without map",
        then(lambda folder: spread(folder, []), write_json(f"{WEIGHTS}.index.json", {})),
        "weight_map",
    ),
    Case(
        "an index of a thousand shards and more",
        lambda folder: spread(folder, [f"{n}.safetensors" for n in range(1025)]),
        "1,024 shards",
    ),
    Case(
        "a token beyond the embeddings",
        edit_json(
            "tokenizer.json",
            lambda raw: raw["added_tokens"].append(raw["added_tokens"][-1] | {"id": 10**6, "content": "zz"}),
        ),
        "rows of the embedding matrix",
    ),
]
