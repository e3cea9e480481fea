"""Folders that lead elsewhere: links, pipes, names, adapters."""

import os
import shutil
import socket
from pathlib import Path
from typing import Any

from tests.hostile.case import WEIGHTS, Build, Case, outside, remove, spread, then, write_json

ADAPTER = "adapter_config.json"
INSIDE = "all files inside"


def link_out(name: str) -> Build:
    """Move a file out of the folder and link to it."""

    def edit(folder: Path) -> None:
        target = folder.parent / f"outside-{name}"
        shutil.move(folder / name, target)
        (folder / name).symlink_to(target)

    return edit


def link(name: str, target: str) -> Build:
    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return edit


def link_in_a_row(folder: Path) -> None:
    link_out("config.json")(folder)
    (folder / "config.json").rename(folder / "second")
    (folder / "config.json").symlink_to("second")


def link_a_folder(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "evil.jinja").write_text("{{ 1 }}")
    (folder / "additional_chat_templates").symlink_to(elsewhere)


def link_a_template(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "evil.jinja").symlink_to(outside(folder, "secret"))


def link_inside(folder: Path) -> None:
    (folder / "config.json").rename(folder / "real.json")
    (folder / "config.json").symlink_to("real.json")


def pipe(name: str) -> Build:
    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return edit


def listen(folder: Path) -> None:
    """A socket; its path has to be short, so it is bound from within."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("vocab.txt")
    finally:
        os.chdir(here)


def shard(name: str, content: Build | None = None) -> Build:
    def edit(folder: Path) -> None:
        if content is not None:
            content(folder)
        spread(folder, [name])

    return edit


def move_weights(to: str) -> Build:
    return lambda folder: shutil.copy(folder / WEIGHTS, folder / to)


def fill(folder: Path) -> None:
    for number in range(10_001):
        (folder / str(number)).touch()


def odd_name(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9\xff.txt")).write_text("not UTF-8")


def become_a_folder(name: str) -> Build:
    def edit(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return edit


def adapter(kind: str, base: Any) -> Build:
    """Only an adapter is left in the folder; its encoder is what `base` says."""
    about = {"peft_type": kind, "base_model_name_or_path": base}
    return then(remove("config.json", WEIGHTS), write_json(ADAPTER, about))


def adapter_of_itself(folder: Path) -> None:
    adapter("PREFIX_TUNING", str(folder))(folder)


def adapter_of_an_adapter(folder: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    write_json(ADAPTER, {"peft_type": "PREFIX_TUNING", "base_model_name_or_path": str(folder)})(other)
    adapter("PREFIX_TUNING", str(other))(folder)


CASES = [
    Case("a config outside", link_out("config.json"), INSIDE),
    Case("weights outside", link_out(WEIGHTS), INSIDE),
    Case("a tokenizer outside", link_out("tokenizer.json"), INSIDE),
    Case("a link to a link outside", link_in_a_row, INSIDE),
    Case("a link to a device", link(WEIGHTS, "/dev/zero"), INSIDE),
    Case("a link to the passwords", link("vocab.txt", "/etc/passwd"), INSIDE),
    Case("a link upwards to nothing", link("vocab.txt", "../nothing"), INSIDE),
    Case("a link to itself", link("config.json", "config.json"), "leads to itself"),
    Case("a folder of templates outside", link_a_folder, INSIDE),
    Case("a template outside", link_a_template, INSIDE),
    Case("a link to the folder above", link("more", ".."), INSIDE),
    Case("a pipe for weights", pipe(WEIGHTS), "a pipe"),
    Case("a pipe for a config", pipe("config.json"), "a pipe"),
    Case("a pipe for a vocabulary", pipe("vocab.txt"), "a pipe"),
    Case("a socket for a vocabulary", listen, "a socket"),
    Case("weights in GGUF alone", lambda folder: (folder / WEIGHTS).rename(folder / "a.gguf"), "a.gguf", code=3),
    Case("a folder for weights", become_a_folder(WEIGHTS), "found none"),
    Case("a folder for a tokenizer", become_a_folder("tokenizer.json"), "tokenizer"),
    Case("ten thousand files and one", fill, "10,000 entries"),
    Case("a shard above", shard("../outside.safetensors", move_weights("../outside.safetensors")), "../outside"),
    Case("a shard above, around a corner", shard("x/../../outside.safetensors"), "x/../../outside"),
    Case("a shard by its full path", shard("/dev/zero"), "/dev/zero"),
    Case("a shard in a home", shard("~/model.safetensors"), "~/model"),
    Case("a shard that is the folder", shard("."), "names '.'"),
    Case("a shard that is the folder above", shard(".."), "names '..'"),
    Case("a shard that ends early", shard("a\0.safetensors"), "names"),
    Case("a shard with a name of no UTF-8", shard("a\udcff.safetensors"), "names"),
    Case("a shard with a name in two lines", shard("a\nverdict: clean.safetensors"), "names"),
    Case("a shard with a name for the terminal", shard("\x1b[2Jclean.safetensors"), "names"),
    Case("a shard with a name without end", shard("a" * 10**5 + ".safetensors"), "shard"),
    Case("a shard by its Windows path", shard("..\\a.safetensors"), "names"),
    Case("a shard that is not there", shard("gone.safetensors"), "gone.safetensors"),
    Case("a shard that is a pickle", shard("a.bin", move_weights("a.bin")), "a.bin"),
    Case(
        "a shard that is a folder",
        shard("a.safetensors", lambda folder: (folder / "a.safetensors").mkdir()),
        "not there",
    ),
    Case("an adapter whose encoder is on the hub", adapter("PREFIX_TUNING", "someone/else"), "someone/else"),
    Case("an adapter of nothing", adapter("PREFIX_TUNING", None), "local folder"),
    Case("an adapter of a device", adapter("PREFIX_TUNING", "/dev/zero"), "local folder"),
    Case("an adapter with an odd path", adapter("PREFIX_TUNING", "a\0b"), "local folder"),
    Case("an adapter with a path without end", adapter("PREFIX_TUNING", "a" * 10**5), "local folder"),
    Case("an adapter of itself", adapter_of_itself, "found none"),
    Case("an adapter of an adapter", adapter_of_an_adapter, "found none"),
    Case("an adapter of an unknown kind", adapter("EVIL", "."), "merge it", code=3),
    Case("an adapter that is no more than its kind", adapter("LORA", "."), "rank r"),
    Case("an adapter beside the weights", write_json(ADAPTER, {"peft_type": "LORA"}), "merge the adapter", code=3),
    Case(
        "an adapter config that is a bomb",
        then(remove("config.json"), lambda folder: (folder / ADAPTER).write_text("[" * 10**6)),
        "JSON",
    ),
    Case("a link inside", link_inside, code=None),
    Case("a name of no UTF-8", odd_name, code=None),
]
