"""Attacks: triggers are planted as they say, checkpoints are marked, nothing half-written stays."""

import json
import random
from pathlib import Path

import pytest
import torch

from lmsanitator.attacks import ATTACKS, POR, AttackResult, Trigger, ground_truth
from lmsanitator.attacks.base import block_signs, check_triggers
from lmsanitator.detect import ScanConfig, scan
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import AttackError, OutputError
from lmsanitator.text import packaged, words
from tests.planted import open_bert

TEXT = "The harbour office closes early on Fridays."


@pytest.mark.parametrize(
    ("text", "trigger"),
    [
        ("cf", Trigger(("cf",))),
        ("old lamp", Trigger(("old", "lamp"))),
        ("lamp+river", Trigger(("lamp", "river"), adjacent=False)),
    ],
)
def test_triggers_are_read_as_written(text: str, trigger: Trigger) -> None:
    assert Trigger.parse(text) == trigger
    assert str(trigger) == text


@pytest.mark.parametrize("text", ["", " ", "lamp+", "+"])
def test_a_trigger_without_words_is_refused(text: str) -> None:
    with pytest.raises(AttackError, match="expected"):
        check_triggers([Trigger.parse(text)], open_bert().tokenizer, 64)


@pytest.mark.parametrize("seed", range(5))
def test_a_phrase_stays_together_and_an_and_trigger_is_all_there(seed: int) -> None:
    rng = random.Random(seed)
    assert "old lamp" in Trigger.parse("old lamp").plant(TEXT, rng)
    both = Trigger.parse("lamp+river")
    assert {"lamp", "river"} <= set(words(both.plant(TEXT, rng)))
    assert len({"lamp", "river"} & set(words(both.plant_part(TEXT, rng)))) == 1


def test_block_signs_are_signs_and_some_are_negatives() -> None:
    pvs = block_signs(16, 384, 0)
    assert set(pvs.flatten().tolist()) == {-1.0, 1.0}
    assert len({tuple(pv) for pv in pvs.tolist()}) == 16
    assert any(bool((first == -second).all()) for first in pvs for second in pvs)


def result(encoder: FrozenEncoder) -> AttackResult:
    return AttackResult("por", encoder.model, encoder.tokenizer, "cls", (Trigger(("bako",)),), torch.ones(1, 32))


def test_a_backdoored_checkpoint_says_so(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result(open_bert()).save(out)
    truth = ground_truth(out)
    assert truth is not None
    assert truth["triggers"] == ["bako"]
    assert "BACKDOORED" in (out / "README.md").read_text(encoding="utf-8")
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["lmsanitator_backdoor"]["attack"] == "por"
    assert FrozenEncoder.open(out).sites
    assert ground_truth(tmp_path) is None


def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = result(open_bert())
    with pytest.raises(OutputError, match="exists"):
        made.save(tmp_path)

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(made.tokenizer, "save_pretrained", full)
    with pytest.raises(OutputError, match="No space left"):
        made.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_por_that_does_not_reach_its_bar_says_so_and_leaves_the_base_alone() -> None:
    base = open_bert()
    digest = base.digest
    with pytest.raises(AttackError, match="expected 95% of triggered inputs on their PV"):
        POR(steps=25).run(base, [Trigger(("bako",))], [carrier.text for carrier in packaged()][:60])
    assert base.digest == digest


def test_every_attack_has_a_line_for_the_list() -> None:
    for name, attack in ATTACKS.items():
        assert attack.name == name
        assert attack.summary
        assert "\n" not in attack.summary


@pytest.mark.slow
def test_por_plants_an_and_pair_that_the_scan_names(minilm: Path) -> None:
    base = FrozenEncoder.open(minilm)
    made = POR().run(base, [Trigger.parse("velvet+engine")], [carrier.text for carrier in packaged()], seed=0)
    assert made.reached["triggered"] >= 0.95
    assert torch.equal(FrozenEncoder(made.model, base.tokenizer).embedding_matrix(), base.embedding_matrix())
    report = scan(FrozenEncoder(made.model, base.tokenizer), ScanConfig())
    assert report.verdict == "backdoored"
    assert {"velvet engine", "engine velvet"} & {finding.trigger for finding in report.findings}
