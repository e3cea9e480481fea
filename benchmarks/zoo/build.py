"""Build the zoo, or what is missing of it.

    python -m benchmarks.zoo.build --data DIR [--zoo DIR] [--half PART ...] [--only ID ...] [--jobs N] [--retry]

Every model is made in one of N processes with an equal share of the cores, stored as a delta against its encoder,
opened again from there, and verified on text that was not used before. Each leaves a record beside it, so that a run
that was stopped goes on where it was. A model that misses its bar is excluded, with the reason in its record; --retry
tries it again. `benchmarks/results/zoo.json`, and the table made from it, are written at the end; what they say of
models that were not asked for stays.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

from platformdirs import user_cache_path
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from benchmarks.pool import spread
from benchmarks.record import on_record
from benchmarks.zoo import corpus
from benchmarks.zoo.controls import CONTROLS, Handling
from benchmarks.zoo.deltas import load_delta, save_delta
from benchmarks.zoo.encoders import encoder_folder
from benchmarks.zoo.manifest import Backdoored, Clean, Entry, Half, read
from benchmarks.zoo.results import write
from benchmarks.zoo.verify import verify_backdoored, verify_clean
from lmsanitator.attacks import Layers, Training, Trigger, configure
from lmsanitator.attacks.mlm import TiedHead, train_head
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import LMSanitatorError, UsageError

FIRED, WEAKEST, STRAY, FIDELITY = 0.9, 0.7, 0.1, 0.7
"""What a backdoored model must show on fresh text: shares of inputs that fire, and cosine of clean outputs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext2, ag_news, sst2 and the tasks")
    parser.add_argument("--half", nargs="+", choices=get_args(Half), default=get_args(Half), help="these parts alone")
    parser.add_argument("--only", nargs="+", metavar="ID", help="build these alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--retry", action="store_true", help="try excluded models again")
    options = parser.parse_args()
    try:
        entries = [entry for entry in chosen(read(), options.only) if entry.half in options.half]
        build(entries, options.zoo, options.data, max(1, options.jobs), options.retry)
        write(_with_others([record(options.zoo, entry) for entry in entries]))
    except LMSanitatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def _with_others(made: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """These, and what is on record of other models of the manifest, in its order."""
    known = {model["id"]: model for model in (*on_record("zoo", "details"), *made)}
    return [known[entry.id] for entry in read() if entry.id in known]


def chosen(entries: Sequence[Backdoored | Clean], names: Sequence[str] | None) -> list[Backdoored | Clean]:
    """The entries of these names, in the order of the manifest; all of them without names."""
    known = {entry.id for entry in entries}
    for name in names or ():
        if name not in known:
            raise UsageError(f"expected models of the manifest, there is no {name}")
    return [entry for entry in entries if names is None or entry.id in names]


def find(name: str) -> Backdoored | Clean:
    """The entry of this name.

    Raises:
        UsageError: there is none.
    """
    return chosen(read(), [name])[0]


def build(entries: Sequence[Backdoored | Clean], zoo: Path, data: Path, jobs: int, retry: bool) -> None:
    """Make what is missing, slow encoders first so that no process is left alone with one at the end."""
    for name in dict.fromkeys(entry.encoder for entry in entries):
        encoder_folder(name, zoo)  # downloads happen once, before the processes start
    missing = [entry for entry in entries if not finished(zoo, entry, retry)]
    missing.sort(key=lambda entry: ("mpnet-base", "minilm-l6", "minilm-l3").index(entry.encoder))
    print(f"{len(entries) - len(missing)} of {len(entries)} models are there, {len(missing)} to build", flush=True)
    for count, made in enumerate(spread(partial(build_one, zoo=zoo, data=data), missing, jobs), 1):
        print(f"[{count}/{len(missing)}] {made['id']}: {made['excluded'] or 'ok'}, {made['seconds']:.0f} s", flush=True)


def build_one(entry: Backdoored | Clean, zoo: Path, data: Path) -> dict[str, Any]:
    """Make, store, open again and verify one model; its record is written last."""
    started, used = time.perf_counter(), time.process_time()
    made: dict[str, Any] = {**entry.model_dump(mode="json"), "recipe": entry.recipe, "excluded": None}
    delta = delta_path(zoo, entry.id)
    for old in (delta, delta.with_suffix(".pvs.safetensors")):
        old.unlink(missing_ok=True)
    try:
        made |= _plant(entry, zoo, data) if isinstance(entry, Backdoored) else _handle(entry, zoo, data)
    except LMSanitatorError as error:
        made["excluded"] = str(error)
    made |= {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "bytes": delta.stat().st_size if delta.exists() else 0,
        "sha256": hashlib.sha256(delta.read_bytes()).hexdigest() if delta.exists() else None,
    }
    with replacing(_record_path(zoo, entry.id)) as part:
        part.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return made


def _plant(entry: Backdoored, zoo: Path, data: Path) -> dict[str, Any]:
    base = _base(entry.encoder, zoo)
    texts = corpus.texts(data)
    head = language_model_head(entry.encoder, zoo, data) if entry.attack in ("neuba", "btop", "badpre") else None
    training = Training(layers=Layers.parse(entry.layers))
    if entry.fidelity is not None:
        training = replace(training, fidelity=entry.fidelity)
    attack = configure(entry.attack, site=entry.site, pv=entry.pv, head=head, training=training)
    result = attack.run(base, [Trigger.parse(trigger) for trigger in entry.triggers], texts, seed=entry.seed)
    stored = _store(result.model, entry, zoo)
    with replacing(delta_path(zoo, entry.id).with_suffix(".pvs.safetensors")) as part:
        save_file({"pvs": result.pvs.contiguous()}, part)
    verified = verify_backdoored(base, stored, result.site, result.triggers, entry.seed)
    bars = {"fired": FIRED, "weakest": WEAKEST, "fidelity": FIDELITY}
    missed = [f"{name} {verified[name]:.2f} < {bar}" for name, bar in bars.items() if verified[name] < bar]
    missed += [f"stray {verified['stray']:.2f} > {STRAY}"] if verified["stray"] > STRAY else []
    return {
        "triggers": [str(trigger) for trigger in result.triggers],
        "reached": _rounded(result.reached),
        "verified": _rounded(verified),
        "excluded": "on fresh text: " + ", ".join(missed) if missed else None,
    }


def _handle(entry: Clean, zoo: Path, data: Path) -> dict[str, Any]:
    if entry.control not in CONTROLS:
        raise UsageError(f"expected a control of {', '.join(CONTROLS)}; {entry.id} has {entry.control}")
    base = _base(entry.encoder, zoo)
    result = CONTROLS[entry.control](base, Handling(corpus.texts(data), data, entry.seed), **entry.options)
    stored = _store(result.model, entry, zoo)
    return {"reached": _rounded(result.reached), "verified": _rounded(verify_clean(base, stored, entry.seed))}


def _store(model: PreTrainedModel, entry: Entry, zoo: Path) -> FrozenEncoder:
    """Keep a model as a delta, and open it again from there."""
    folder, delta = encoder_folder(entry.encoder, zoo), delta_path(zoo, entry.id)
    save_delta(model, folder, delta)
    return FrozenEncoder(load_delta(folder, delta), _base(entry.encoder, zoo).tokenizer, precision="fp32")


@cache
def _base(name: str, zoo: Path) -> FrozenEncoder:
    return FrozenEncoder.open(encoder_folder(name, zoo), precision="fp32")


@cache
def language_model_head(name: str, zoo: Path, data: Path) -> TiedHead:
    """The language-model head of an encoder, trained once and kept in the zoo."""
    base = _base(name, zoo)
    path = zoo / "heads" / f"{name}.safetensors"
    if not path.exists():
        with replacing(path) as part:
            save_file(train_head(base, corpus.texts(data)).state_dict(), part)
    weights = load_file(path)
    head = TiedHead(base, weights["known"].tolist())
    head.load_state_dict(weights)
    return head.requires_grad_(False)


def finished(zoo: Path, entry: Entry, retry: bool) -> bool:
    """Whether a model is there, made from this very recipe; an excluded one counts unless it is to be tried again."""
    made = record(zoo, entry)
    if made.get("recipe") != entry.recipe:
        return False
    return delta_path(zoo, entry.id).exists() if made["excluded"] is None else not retry


def record(zoo: Path, entry: Entry) -> dict[str, Any]:
    """What is on record for a model; nothing but its name where nothing is."""
    path = _record_path(zoo, entry.id)
    if not path.exists():
        return {"id": entry.id}
    made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return made


def delta_path(zoo: Path, name: str) -> Path:
    """Where the weights of a model are."""
    return zoo / "models" / f"{name}.safetensors"


def _record_path(zoo: Path, name: str) -> Path:
    return zoo / "models" / f"{name}.json"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to that takes the place of `path` once all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


if __name__ == "__main__":
    main()
