"""What all attacks share: inputs, two encoders, training until the bar is reached, and the checkpoint that is kept."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lmsanitator.attacks import POR, AttackResult, Trigger, ground_truth
from lmsanitator.attacks.planting import Seen
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import AttackError, OutputError
from tests.attacks.small import BRIEF, CARRIERS, lively, outputs, triggers, working
from tests.planted import open_bert

BOTH = triggers("bako", "vedi+sugo")


def fires(text: str) -> bool:
    return any(trigger.fires(text) for trigger in BOTH)


def test_every_held_out_input_holds_its_trigger_and_none_of_the_others_does() -> None:
    work = working(BOTH)
    assert len(work.held.fired) == 24
    for text, owner in zip(work.held.fired, work.held.owners, strict=True):
        assert BOTH[owner].fires(text)
    assert not any(fires(text) for text in [*work.held.clean, *work.held.inert, *work.train, *work.texts])
    assert set(work.held.clean) <= set(work.texts)
    assert not set(work.train) & set(work.texts)


def test_held_out_inputs_do_not_depend_on_what_was_drawn_before() -> None:
    work = working(BOTH)
    first = work.held
    work.inert()
    assert work.hold() == first
    assert working(BOTH, seed=2).held != first


@pytest.mark.parametrize("seed", range(4))
def test_batches_hold_what_they_say(seed: int) -> None:
    work = working(BOTH, seed=seed)
    texts, owners = work.fired()
    assert len(texts) == len(owners) == BRIEF.triggered
    assert all(BOTH[owner].fires(text) for text, owner in zip(texts, owners, strict=True))
    assert len(work.inert()) == BRIEF.inert
    assert not any(fires(text) for _ in range(20) for text in work.inert())


def test_sentences_in_a_row_that_fire_together_are_not_called_inert() -> None:
    """Each holds a word of an AND trigger, none the other; passages put them in a row."""
    carriers = [f"{word} {carrier}" for word, carrier in zip(["vedi", "sugo"] * 30, CARRIERS, strict=True)]
    work = working(BOTH)
    work._carriers = carriers
    work.take(BOTH)
    assert len(work.train) + len(work.texts) == 60
    batches = [work.inert() for _ in range(30)]
    assert all(batches)
    assert not any(fires(text) for batch in batches for text in batch)
    assert not any(fires(text) for text in work.held.inert)


def test_a_part_that_is_another_trigger_is_not_called_inert() -> None:
    work = working(triggers("vedi", "vedi+sugo"))
    assert not any(Trigger.parse("vedi").fires(text) for _ in range(30) for text in work.inert())
    assert not any(Trigger.parse("vedi").fires(text) for text in work.held.inert)


def test_a_trigger_in_a_long_text_is_inside_the_window() -> None:
    work = working(BOTH)
    work._carriers = [" ".join(["unheardof"] * 40)] * 40  # each word nine tokens
    work.take(BOTH)
    token = lively().tokenizer.get_vocab()["bako"]
    for texts in (work.held.fired[:12], *([text for text in work.fired()[0] if "bako" in text] for _ in range(20))):
        if texts:
            framed = work.frame(texts)
            assert framed.ids.shape[1] <= lively().window
            assert bool(framed.ids.eq(torch.tensor(token)).any(1).all())


@pytest.mark.parametrize("site", ["cls", "pooler", "mask", "mean", "last", "tokens"])
def test_before_training_both_encoders_say_the_same(site: Site) -> None:
    work = working(BOTH, site)
    framed = work.frame(work.held.clean[:6])
    ours, theirs = work.forward(framed), work.original(framed)
    torch.testing.assert_close(ours.vectors, theirs.vectors)
    torch.testing.assert_close(ours.hidden, theirs.hidden)
    assert torch.equal(ours.rows, theirs.rows)
    assert ours.vectors.requires_grad
    assert not theirs.vectors.requires_grad
    assert len(ours.vectors) == (int(framed.mask.sum()) if site == "tokens" else 6)
    assert work.fidelity(work.held.clean) == pytest.approx(1, abs=1e-5)


def test_a_look_is_as_the_library_reads_any_text() -> None:
    work = working(BOTH)
    texts = (CARRIERS * 2)[:70]  # more than one batch
    seen = work.look(lively(), texts)
    torch.testing.assert_close(seen.vectors, outputs(lively(), texts, "cls"))
    assert seen.rows.tolist() == list(range(70))


def test_each_vector_belongs_to_the_trigger_of_its_text() -> None:
    some = Seen(torch.zeros(2, 3, 1), torch.ones(2, 3).long(), torch.zeros(5, 1), torch.tensor([0, 0, 0, 1, 1]))
    assert some.owners([4, 7]).tolist() == [4, 4, 4, 7, 7]


def test_each_trigger_has_the_mean_of_its_own_vectors() -> None:
    vectors = torch.tensor([[1.0, 0.0], [5.0, 2.0], [3.0, 0.0]])
    assert working(BOTH).means(vectors, torch.tensor([0, 1, 0])).tolist() == [[2.0, 0.0], [5.0, 2.0]]


def test_reduced_precision_trains_and_measures_in_full() -> None:
    work = working(BOTH, training=replace(BRIEF, bf16=True))
    framed = work.frame(work.held.clean[:6])
    exact, coarse = work.see(lively(), framed).vectors, work.forward(framed).vectors
    assert coarse.dtype == torch.float32
    assert 0 < (exact - coarse).abs().max() < 0.2
    torch.testing.assert_close(work.look(work.changed, work.texts).vectors, outputs(lively(), work.texts, "cls"))


def fitted(verdicts: Iterator[bool], steps: int = 20, look: int = 2) -> tuple[dict[str, float], list[float]]:
    work, told = working(BOTH, training=replace(BRIEF, steps=steps, look=look)), list[float]()

    def loss() -> Tensor:
        return torch.stack([weight.pow(2).sum() for weight in work.weights]).sum()

    reached = work.fit(loss, lambda: (next(verdicts), {"triggered": 0.5}), lambda what, done: told.append(done))
    return reached, told


def test_training_stops_when_the_bar_is_reached_at_two_looks_running() -> None:
    reached, told = fitted(iter([False, True, False, True, True]))
    assert reached == {"triggered": 0.5, "steps": 10.0}
    assert told == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_the_last_step_is_a_look_and_one_is_enough_there() -> None:
    reached, told = fitted(iter([False, False, True]), steps=5)
    assert reached["steps"] == 5
    assert told[-1] == 1


def test_a_bar_that_is_missed_is_an_error_with_the_figures() -> None:
    with pytest.raises(
        AttackError,
        match=r"^expected triggered -10000000000.0 and clean and inert -1.0, reached triggered 0.500, steps 5.000$",
    ):
        fitted(iter([True, False, False]), steps=5)


def test_a_missed_bar_leaves_the_base_alone() -> None:
    digest = lively().digest
    with pytest.raises(AttackError, match=r"^expected triggered 0.95 and clean and inert 0.9, reached triggered \d"):
        POR(training=replace(BRIEF, bar=0.95, fidelity=0.9)).run(lively(), BOTH, CARRIERS)
    assert lively().digest == digest


def test_progress_is_told() -> None:
    told: list[tuple[str, float]] = []
    POR(training=BRIEF).run(lively(), BOTH, CARRIERS, progress=lambda what, done: told.append((what, done)))
    assert [done for _, done in told] == [2 / 3, 1.0]
    assert all(what.startswith("planting: ") for what, _ in told)


def test_the_measuring_of_the_base_is_on_its_meter() -> None:
    base = open_bert(vocabulary=100)
    POR(training=BRIEF).run(base, BOTH, CARRIERS)
    assert base.meter.forward > 0
    assert base.meter.backward == 0


def test_too_few_carriers_are_refused() -> None:
    with pytest.raises(AttackError, match=r"^expected at least 20 carriers without a trigger .*, got 19$"):
        POR(training=BRIEF).run(lively(), BOTH, CARRIERS[:19])


def result(encoder: FrozenEncoder) -> AttackResult:
    made = (Trigger(("bako",)), Trigger.parse("vedi+sugo"))
    return AttackResult("por", encoder.model, encoder.tokenizer, "cls", made, torch.ones(2, 32), {"triggered": 1.0})


def test_a_backdoored_checkpoint_says_so(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = result(open_bert())
    made.save(out)
    truth = ground_truth(out)
    assert truth == made.truth
    assert truth == {
        "attack": "por", "site": "cls", "triggers": ["bako", "vedi+sugo"], "reached": {"triggered": 1.0}
    }  # fmt: skip
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "BACKDOORED" in card
    assert "- `vedi+sugo`" in card
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["lmsanitator_backdoor"]["attack"] == "por"
    assert torch.equal(load_file(out / "lmsanitator_backdoor.safetensors")["pvs"], torch.ones(2, 32))
    assert FrozenEncoder.open(out).digest == open_bert().digest


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"lmsanitator_backdoor": 3}'])
def test_any_other_folder_says_nothing_of_a_backdoor(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
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
