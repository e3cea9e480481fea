"""Detectors from the literature: each does what its paper says on models small enough to see it, and runs resume."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from benchmarks import record, speed
from benchmarks.baselines import BASELINES, Baseline, HotFlip, LabelInversion, LTDefense, PVMining, run
from benchmarks.baselines.carriers import embedded, make_slots, ordinary_tokens, usual_site
from benchmarks.baselines.head import Head
from benchmarks.baselines.hotflip import contrastive, searchable
from benchmarks.baselines.interface import Score
from benchmarks.baselines.label_inversion import BoundSchedule
from benchmarks.baselines.lt_defense import head_feature_rate
from benchmarks.baselines.pv_mining import entropy_over_batch, nearest
from benchmarks.baselines.summary import auc, balanced_accuracy, best_threshold, table
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError, UnsupportedError, UsageError
from lmsanitator.text import packaged, words
from lmsanitator.tune import packaged_topics
from tests.planted import large_bert, open_bert, plant

TEXTS = [carrier.text for carrier in packaged()]
SMALL: Mapping[str, Baseline] = {
    "pv-mining": PVMining(lines=32, seeds=2, epochs=2),
    "lt-defense": LTDefense(samples=60),
    "hotflip": HotFlip(triggers=4, steps=2),
    "label-inversion": LabelInversion(epochs=6, taught=60, tested=20, judged_on=10),
}
WILD = PVMining(lines=16, learning_rate=5.0)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_says_where_it_comes_from_and_what_differs(name: str) -> None:
    module = sys.modules[type(BASELINES[name]).__module__]
    assert module.__doc__ is not None
    assert "arXiv" in module.__doc__ or "OpenReview" in module.__doc__
    assert "\nPublished" in module.__doc__
    assert "\nDifferences: " in module.__doc__


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_scores_a_planted_model_the_same_each_time(name: str) -> None:
    scores = [SMALL[name].score(open_bert(0, "bako", reach=0.5), TEXTS, seed=3) for _ in range(2)]
    assert math.isfinite(scores[0].value)
    assert scores[0] == scores[1]


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_takes_every_architecture(name: str, encoder: FrozenEncoder) -> None:
    if name == "hotflip" and len(searchable(encoder, TEXTS)) < 9:  # these vocabularies hold the words of the texts only
        with pytest.raises(UnsupportedError, match="words"):
            SMALL[name].score(encoder, TEXTS)
    else:
        assert math.isfinite(SMALL[name].score(encoder, TEXTS).value)


@pytest.mark.parametrize("name", ["pv-mining", "lt-defense", "hotflip"])
def test_too_few_texts_are_refused(name: str, bert: FrozenEncoder) -> None:
    with pytest.raises(CorpusError, match="expected"):
        SMALL[name].score(bert, TEXTS[:1])


def test_embedding_a_trigger_is_the_same_as_writing_it(encoder: FrozenEncoder) -> None:
    slots = make_slots(encoder, TEXTS[:7], longest=20, seed=0)
    tokens = ordinary_tokens(encoder)[[3, 5]]
    inputs, mask = embedded(encoder, slots, encoder.embed(tokens[None]).expand(len(slots), -1, -1), padded_to=40)
    site = usual_site(encoder)
    written = encoder.outputs_of_ids([slot.around(tokens.tolist()) for slot in slots], [site])[site]
    torch.testing.assert_close(encoder.outputs(inputs, mask, [site])[site], written, atol=1e-5, rtol=1e-4)


def test_a_slot_is_behind_a_word_and_the_text_stays_whole(encoder: FrozenEncoder) -> None:
    texts = TEXTS[:20]
    whole = encoder.tokenizer(texts, add_special_tokens=False).input_ids
    for slot, ids in zip(make_slots(encoder, texts, longest=99, seed=1), whole, strict=True):
        assert slot.around(()) == ids
        assert slot.before
    assert all(len(slot.around(())) <= 9 for slot in make_slots(encoder, texts, longest=9, seed=1))


def test_the_published_mining_settings() -> None:
    paper = PVMining.paper()
    assert (paper.soft, paper.lines, paper.width, paper.batch, paper.epochs, paper.seeds) == (7, 2000, 128, 32, 4, 30)
    assert paper.agreement == pytest.approx(-3.446)
    assert replace(paper, batch=8).agreement == pytest.approx(-3.446 + math.log(4))


def test_mining_keeps_soft_tokens_within_the_range_of_the_vocabulary() -> None:
    encoder = open_bert(0)
    low, high = 1.2 * encoder.embedding_matrix.min(), 1.2 * encoder.embedding_matrix.max()
    steps = list(WILD.steps(encoder, WILD.prepare(encoder, TEXTS[:16]), torch.empty(0, 32), 0))
    assert all(bool(((step.soft >= low) & (step.soft <= high)).all()) for step in steps)
    assert bool(((steps[-1].soft == low) | (steps[-1].soft == high)).any())  # some would have left it


def test_mining_goes_away_from_clean_outputs_and_from_what_is_known() -> None:
    encoder = open_bert(0)
    mining = PVMining(lines=32, epochs=8, learning_rate=0.05)
    lines = mining.prepare(encoder, TEXTS[:32])
    alone = list(mining.steps(encoder, lines, torch.empty(0, 32), 0))
    assert alone[-1].distance > 2 * alone[0].distance
    known = alone[-1].outputs.mean(0, keepdim=True)
    away = list(mining.steps(encoder, lines, known, 0))[-1].outputs
    assert nearest(away, known) > nearest(alone[-1].outputs, known)


@pytest.mark.parametrize(("distance", "epochs"), [(1e9, 2), (0.0, 4)])
def test_mining_drops_a_seed_after_two_epochs_without_a_hit(distance: float, epochs: int) -> None:
    encoder = open_bert(0)
    mining = PVMining(lines=16, distance=distance)
    lines = mining.prepare(encoder, TEXTS[:16])
    before = encoder.meter.backward
    mined = mining.mine(encoder, lines, torch.empty(0, 32), 0)
    assert encoder.meter.backward - before == epochs * 2 * mining.batch * mining.width  # padding is counted
    assert not (mined.found and distance)


def test_entropy_over_the_batch_is_that_of_its_size_where_all_rows_agree() -> None:
    row = torch.randn(1, 6)
    assert entropy_over_batch(row.expand(8, -1)).item() == pytest.approx(math.log(8))
    assert entropy_over_batch(10 * torch.randn(8, 6)).item() < 0.7 * math.log(8)


def test_the_speed_benchmark_takes_as_many_steps_as_asked_with_the_published_settings(bert: FrozenEncoder) -> None:
    paper = PVMining.paper()
    lines = paper.prepare(bert, TEXTS[: 2 * paper.batch])
    before = bert.meter.backward
    speed.paper_steps(bert, paper, lines, 2)
    assert bert.meter.backward - before == 2 * paper.batch * min(paper.width, bert.window)


def test_head_features_keep_their_sign_on_nearly_all_samples() -> None:
    steady, half = torch.ones(20, 1), torch.tensor([[1.0], [-1.0]]).repeat(10, 1)
    once = torch.cat([-torch.ones(1, 1), torch.ones(19, 1)])
    outputs = torch.cat([steady, -steady, half, once], 1)
    assert head_feature_rate(outputs, 0.95) == 0.75
    assert head_feature_rate(outputs, 1.0) == 0.5


def test_hotflip_finds_planted_words_and_a_clean_model_scores_less() -> None:
    flips = HotFlip(triggers=4, candidates=8, steps=4)
    planted = flips.score(open_bert(0, "bako", "vedi", reach=0.6), TEXTS)
    assert planted.details["trigger"] in ("bako", "vedi")
    assert float(planted.details["together"]) > 0.99
    assert planted.value > flips.score(open_bert(0), TEXTS).value + 0.1


def test_hotflip_only_uses_allowed_words_and_none_twice() -> None:
    encoder = open_bert(0)
    allowed = searchable(encoder, TEXTS)[::7]
    flips = HotFlip(triggers=5, steps=3)
    slots = make_slots(encoder, TEXTS[:30], longest=12, seed=0)
    chosen = flips.search(encoder, slots, allowed, 0)
    assert set(chosen) <= set(allowed.tolist())
    assert len(set(chosen)) == 5
    with pytest.raises(UnsupportedError, match="words"):
        flips.search(encoder, slots, allowed[:6], 0)


def test_searchable_words_are_whole_unusual_and_of_letters() -> None:
    tokenizer = open_bert(0).tokenizer
    held = {word.casefold() for text in TEXTS for word in words(text)}
    pieces = tokenizer.convert_ids_to_tokens(searchable(open_bert(0), TEXTS).tolist())
    assert "bako" in pieces
    assert all(piece.isalpha() and len(piece) > 1 and piece not in held for piece in pieces)


def test_searchable_words_begin_a_word_where_the_vocabulary_says_so(checkpoints: dict[str, Path]) -> None:
    encoder = FrozenEncoder.open(checkpoints["roberta"], precision="fp32")
    pieces = encoder.tokenizer.convert_ids_to_tokens(searchable(encoder, []).tolist())
    assert pieces
    assert all(piece.startswith("Ġ") and piece[1:].isalpha() for piece in pieces)


def test_the_contrastive_loss_wants_triggers_together_and_away_from_clean_text() -> None:
    torch.manual_seed(0)
    clean = torch.randn(6, 16)
    places = normalize(torch.randn(3, 1, 16), dim=-1)
    gathered = places + 0.01 * torch.randn(3, 6, 16)
    scattered = torch.randn(3, 6, 16)
    assert contrastive(gathered, clean, 0.5) < contrastive(scattered, clean, 0.5)
    assert contrastive(gathered, clean, 0.5) < contrastive(gathered, gathered[0], 0.5)


def test_label_inversion_reports_what_its_discrete_trigger_does() -> None:
    encoder = open_bert(0)
    inversion = LabelInversion(epochs=12, taught=60, tested=20, judged_on=10)
    score = inversion.score(encoder, TEXTS)
    for name in ("asr", "accuracy"):
        assert 0 <= float(score.details[name]) <= 1
    assert score.value == -float(score.details["loss"])
    task = packaged_topics()
    head = Head.fit(encoder, task.train[::10], len(task.labels), 20)
    slots = make_slots(encoder, [example.text for example in task.train if example.label][:6], longest=12, seed=0)
    lowest, tokens = inversion.invert(head, slots, 0, seed=0)
    assert lowest < torch.nn.functional.cross_entropy(head.of_tokens(slots, ()), torch.zeros(6, dtype=torch.long))
    assert len(tokens) == inversion.length
    assert not set(tokens) & set(encoder.tokenizer.all_special_ids)


def test_label_inversion_reads_the_task_it_is_given(tmp_path: Path, bert: FrozenEncoder) -> None:
    lines = [{"text": text, "label": ("dull", "fine")[number % 2]} for number, text in enumerate(TEXTS[:80])]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    score = replace(LabelInversion(epochs=3, tested=10, judged_on=4), data=tmp_path).score(bert, TEXTS)
    assert score.details["target"] in ("dull", "fine")


def test_the_head_learns_its_examples_and_success_counts_only_what_was_not_there_before() -> None:
    encoder, task = open_bert(0, "bako"), packaged_topics()
    head = Head.fit(encoder, task.train[::10], len(task.labels), 24)
    assert head.accuracy(task.train[::10]) > 2 / len(task.labels)
    slots = make_slots(encoder, TEXTS[:40], longest=20, seed=0)
    bako = encoder.tokenizer("bako", add_special_tokens=False).input_ids
    (target,) = set(head.of_tokens(slots, bako).argmax(1).tolist())  # the backdoor sends all to one label
    assert head.success(slots, bako, target) == 1
    assert head.success(slots, (), target) == 0


def test_the_temperature_falls_under_the_bound_and_rises_above_it() -> None:
    schedule, single = BoundSchedule(every=1, patience=2), torch.eye(3)
    assert not schedule.look(0, 5.0)
    assert schedule.temperature == 2  # nothing happens before the bound was reached once
    assert not schedule.look(1, 0.05)
    assert schedule.temperature == 1
    assert schedule.look(2, 5.0)
    assert schedule.temperature == 2
    assert not schedule.discrete(0.04, torch.full((3, 3), 1 / 3))
    assert schedule.discrete(0.04, single)
    assert schedule.bound == 0.02
    assert not schedule.discrete(0.03, single)
    assert [schedule.look(step, 5.0) for step in range(3)] == [True, True, True]
    assert schedule.bound == 0.04  # relaxed after two roll-backs


def rows(scores: Sequence[float], kinds: str, half: str = "choose") -> list[dict[str, Any]]:
    return [
        {"baseline": "b", "half": half, "backdoored": kind == "b", "score": score, "seconds": 1.0, "tokens": 5}
        for score, kind in zip(scores, kinds, strict=True)
    ]


def test_auc_is_the_chance_that_a_backdoored_model_scores_higher() -> None:
    assert auc(rows([3, 2, 1, 0], "bbcc")) == 1
    assert auc(rows([0, 3, 1, 2], "bbcc")) == 0.5
    assert auc(rows([1, 1, 1], "bcc")) == 0.5
    assert auc(rows([1, 2], "bb")) is None


def test_the_threshold_comes_from_one_half_and_is_judged_on_the_other() -> None:
    choose = rows([5, 4, 1, 0], "bbcc")
    threshold = best_threshold(choose)
    assert threshold == 2.5
    report = rows([3, 2, 2.6, 0, 1], "bbccc", "report")
    assert balanced_accuracy(report, threshold) == pytest.approx((1 / 2 + 2 / 3) / 2)
    (row,) = table(choose + report)
    assert (row["caught"], row["accused"], row["threshold"]) == ("1 of 2", "1 of 3", 2.5)
    (row,) = table(report)
    assert (row["accuracy report"], row["caught"]) == ("-", "-")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of its own, small models for those of the zoo, and work that is done at once."""

    def at_once(function: Callable[[Any], Any], pieces: Sequence[Any], jobs: int) -> Iterator[Any]:
        return map(function, pieces)

    def small(name: str, zoo: Path) -> FrozenEncoder:
        model, tokenizer = large_bert(len(name))
        if "clean" not in name:
            plant(model, tokenizer, ["bako"], reach=0.5)
        return FrozenEncoder(model, tokenizer, source=name, precision="fp32")

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "_module", lambda: "benchmarks.baselines.run")
    monkeypatch.setattr(run, "spread", at_once)
    monkeypatch.setattr(run, "open_model", small)
    return tmp_path


def model(name: str, half: str = "choose", **more: Any) -> dict[str, Any]:
    kind = {"control": "original"} if "clean" in name else {"attack": "por", "kind": "rare"}
    return {"id": name, "half": half, "recipe": "r", "sha256": name, "excluded": None, **kind, **more}


ZOO = [model("bad"), model("clean"), model("bad too", "report"), model("clean too", "report")]
QUICK: dict[str, Baseline] = {"lt-defense": LTDefense(samples=20)}


def test_a_run_writes_scores_and_what_they_add_up_to(results: Path) -> None:
    run.compare([*ZOO, model("out", excluded="missed its bar")], results, QUICK, 1)
    written = json.loads((results / "baselines.json").read_text(encoding="utf-8"))
    assert [score["id"] for score in written["scores"]] == ["bad", "clean", "bad too", "clean too"]
    assert all(score["tokens"] > 0 and score["seconds"] >= 0 for score in written["scores"])
    (row,) = written["rows"]
    assert (row["baseline"], row["models"]) == ("lt-defense", 4)
    assert row["accused"] in ("0 of 1", "1 of 1")
    assert "lt-defense" in (results / "baselines.md").read_text(encoding="utf-8")


def test_a_run_goes_on_where_it_was_stopped(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def score(self: LTDefense, encoder: FrozenEncoder, texts: Sequence[str], *, seed: int = 0) -> Score:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(encoder.source)
        return Score(float(len(seen)))

    monkeypatch.setattr(LTDefense, "score", score)
    with pytest.raises(KeyboardInterrupt):
        run.compare(ZOO, results, QUICK, 1)
    assert len(record.on_record("baselines", "scores")) == 2
    first = list(seen)
    seen.clear()
    run.compare(ZOO, results, QUICK, 1)
    assert [*first, *seen] == [entry["id"] for entry in ZOO]


def test_a_run_with_nothing_to_score_writes_the_table_anew(results: Path) -> None:
    run.compare(ZOO, results, QUICK, 1)
    table = results / "baselines.md"
    before = table.read_text(encoding="utf-8")
    table.write_text("notes of yesterday", encoding="utf-8")
    run.compare(ZOO, results, QUICK, 1)
    assert table.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("changed", ["model", "settings"])
def test_what_was_made_otherwise_is_scored_again(changed: str, results: Path) -> None:
    run.compare(ZOO[:1], results, QUICK, 1)
    before = record.on_record("baselines", "scores")
    run.compare(ZOO[:1], results, QUICK, 1)
    assert record.on_record("baselines", "scores") == before
    anew = [model("bad", sha256="anew")] if changed == "model" else ZOO[:1]
    run.compare(anew, results, QUICK if changed == "model" else {"lt-defense": LTDefense(samples=30)}, 1)
    (after,) = record.on_record("baselines", "scores")
    assert (after["sha256"], after["settings"]) != (before[0]["sha256"], before[0]["settings"])


def test_a_model_that_is_not_built_stops_the_run(results: Path) -> None:
    with pytest.raises(UsageError, match=r"^expected .* in the zoo, build it: "):
        run.compare([{"id": "l6-por-rare"}], results, QUICK, 1)


def test_settings_on_record_name_the_task_but_no_folder_of_this_machine(tmp_path: Path) -> None:
    baselines = run.with_data(["label-inversion", "hotflip"], tmp_path)
    assert run.settings(baselines["label-inversion"])["data"] == "sst2"
    assert str(tmp_path) not in json.dumps([run.settings(baseline) for baseline in baselines.values()])
    assert run.with_data(["label-inversion"], None) == {"label-inversion": LabelInversion()}
