"""The manifest: enough models of every kind, both halves alike, and nothing the tokenizer cannot spell."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.detection_summary import HALVES
from benchmarks.zoo.controls import CONTROLS
from benchmarks.zoo.manifest import Backdoored, Clean, Entry, read
from lmsanitator.attacks import ATTACKS, KINDS, PV_KINDS, Layers, Training, Trigger, configure
from lmsanitator.attacks.trigger import check_triggers
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import UsageError

ENTRIES = read()
BACKDOORED = [entry for entry in ENTRIES if isinstance(entry, Backdoored)]
CLEAN = [entry for entry in ENTRIES if isinstance(entry, Clean)]


def test_there_are_enough_models_each_with_a_name_and_a_seed() -> None:
    assert len(BACKDOORED) >= 40
    assert len(CLEAN) >= 24
    assert len({entry.id for entry in ENTRIES}) == len({entry.seed for entry in ENTRIES}) == len(ENTRIES)


def test_every_attack_kind_and_control_is_in_it() -> None:
    assert {entry.attack for entry in BACKDOORED} == set(ATTACKS)
    assert {entry.kind for entry in BACKDOORED} == set(KINDS)
    assert {entry.pv for entry in BACKDOORED} - {None} == set(PV_KINDS)
    assert {entry.site for entry in BACKDOORED} >= {"cls", "mask", "tokens", "pooler", "mean"}
    assert {entry.control for entry in CLEAN} == set(CONTROLS)


def test_what_is_reported_on_is_no_smaller_than_what_was_decided_on() -> None:
    for group in (BACKDOORED, CLEAN):
        for encoder in ("minilm-l6", "minilm-l3", "mpnet-base"):
            parts = Counter(entry.half for entry in group if entry.encoder == encoder)
            assert parts["report"] + parts["fresh"] + parts["sealed"] >= parts["choose"] - 1
            assert min(parts["choose"], parts["report"]) >= 1


def test_no_trigger_of_a_part_drawn_later_is_one_of_another_model() -> None:
    words = {half: {word for entry in BACKDOORED if entry.half == half for word in entry.triggers} for half in HALVES}
    assert not words["fresh"] & (words["choose"] | words["report"])
    assert not words["sealed"] & (words["choose"] | words["report"] | words["fresh"])
    assert not words["untouched"] & (words["choose"] | words["report"] | words["fresh"] | words["sealed"])
    earlier = {word for half in HALVES if half != "late" for word in words[half]}
    assert not words["late"] & earlier


@pytest.mark.parametrize("entry", BACKDOORED, ids=lambda entry: str(entry.id))
def test_a_backdoored_model_can_be_configured(entry: Backdoored) -> None:
    training = Training(layers=Layers.parse(entry.layers))
    attack = configure(entry.attack, site=entry.site, pv=entry.pv, training=training)
    assert attack.site == entry.site
    listed = [Trigger.parse(trigger) for trigger in entry.triggers]
    assert [str(trigger) for trigger in listed] == list(entry.triggers)
    assert all(trigger.adjacent is (entry.kind != "and") for trigger in listed)
    assert all((len(trigger.words) > 1) is (entry.kind in ("and", "pair", "phrase")) for trigger in listed)


def test_the_tokenizer_knows_every_trigger(minilm: Path) -> None:
    encoder = FrozenEncoder.open(minilm)
    for entry in BACKDOORED:
        check_triggers([Trigger.parse(trigger) for trigger in entry.triggers], encoder.tokenizer, encoder.window)


GOOD = '[[clean]]\nid = "a"\nencoder = "minilm-l3"\nhalf = "choose"\nseed = 1\ncontrol = "original"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[clean", "expected a manifest"),
        (GOOD + GOOD, "has a twice"),
        (GOOD.replace('"choose"', '"both"'), "expected a manifest"),
        (GOOD.replace("minilm-l3", "other"), "expected a manifest"),
        (GOOD.replace("seed = 1", 'seed = "x"'), "expected a manifest"),
        (GOOD.replace("seed = 1\n", ""), "expected a manifest"),
        (GOOD + "extra = 1\n", "expected a manifest"),
        ("\udcff", "expected a manifest"),
    ],
)
def test_a_bad_manifest_is_refused_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=says) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a manifest"):
        read(tmp_path / "none.toml")


def test_the_recipe_changes_with_everything_but_the_half() -> None:
    entry = BACKDOORED[0]
    other: Entry = entry.model_copy(update={"half": "choose" if entry.half == "report" else "report"})
    assert other.recipe == entry.recipe
    assert len({one.recipe for one in ENTRIES}) == len(ENTRIES)
    for changed in ({"seed": 999}, {"triggers": ("x",)}, {"site": "mean"}, {"layers": "head"}, {"pv": None}):
        assert entry.model_copy(update=changed).recipe != entry.recipe
