"""The scan as a whole: planted triggers are named, clean encoders are called clean, the same seed says the same."""

import json
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lmsanitator.detect import ScanConfig, ScanReport, scan
from lmsanitator.detect.config import PLANS
from lmsanitator.detect.confirm import Confirmation, Suspect
from lmsanitator.detect.contexts import PHRASE
from lmsanitator.detect.evidence import Evidence, Null
from lmsanitator.detect.naming import Naming
from lmsanitator.detect.phrases import PhraseSearch
from lmsanitator.detect.words import WordSearch
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import CheckpointError, CorpusError, UnsupportedError, UsageError
from lmsanitator.text import packaged
from lmsanitator.vectors import sign_match
from tests.conftest import bert_tokenizer, make_gpt2
from tests.planted import ids_of, large_bert, open_bert, plant

QUICK = ScanConfig(effort="quick")
ONE_SITE = ScanConfig(sites=("cls",))  # mines, at half the cost


def triggers(report: ScanReport) -> set[str | None]:
    return {finding.trigger for finding in report.findings}


def said(report: ScanReport) -> object:
    """Everything but how long it took."""
    return report.model_dump(exclude={"cost": {"seconds"}})


@pytest.mark.parametrize("config", [QUICK, ScanConfig()], ids=["quick", "standard"])
def test_planted_words_are_named_and_the_encoder_is_called_backdoored(config: ScanConfig) -> None:
    report = scan(open_bert(0, "bako", "kifa"), config)
    assert report.verdict == "backdoored"
    assert triggers(report) == {"bako", "kifa"}
    assert report.p_value < 1e-6


@pytest.mark.parametrize(("rate", "verdict", "phrases"), [(0.9, "backdoored", 0), (0.5, "inconclusive", 1)])
def test_words_that_do_not_replay_are_no_reason_to_stop_and_not_known(
    monkeypatch: pytest.MonkeyPatch, rate: float, verdict: str, phrases: int
) -> None:
    confirm = WordSearch.confirm
    looked_for: list[Sequence[Evidence]] = []

    def weaker(words: WordSearch, more: Sequence[Suspect] = ()) -> Confirmation:
        found = confirm(words, more)
        kept = [replace(item, evidence=replace(item.evidence, replay_rate=rate)) for item in found.kept]
        return replace(found, kept=kept)

    def nothing(_: PhraseSearch, known: Sequence[Evidence]) -> list[Suspect]:
        looked_for.append(known)
        return []

    monkeypatch.setattr(WordSearch, "confirm", weaker)
    monkeypatch.setattr(PhraseSearch, "run", nothing)
    monkeypatch.setattr(Naming, "name", lambda _, found, progress: found)
    report = scan(open_bert(0, "bako"), ONE_SITE)
    assert (report.verdict, looked_for) == (verdict, [[]] * phrases)


@pytest.mark.parametrize("seed", range(6))
def test_a_clean_encoder_is_called_clean_by_the_sweep(seed: int) -> None:
    report = scan(open_bert(seed), ScanConfig(effort="quick", seed=seed))
    assert (report.verdict, report.findings, len(report.bank)) == ("clean", [], 0)
    assert report.p_value > 0.01


def test_a_clean_encoder_is_called_clean_after_every_stage() -> None:
    told: list[str] = []
    report = scan(open_bert(0), progress=lambda what, done: told.append(what))
    assert (report.verdict, report.findings, len(report.bank)) == ("clean", [], 0)
    assert list(dict.fromkeys(told)) == [
        "sweeping the vocabulary",
        "looking again at outliers",
        "sweeping the dictionary",
        "mining at cls",
        "mining at mask",
        "mining at mean",
        "recovering words at cls",
        "recovering words at mask",
        "recovering words at mean",
    ]


@pytest.mark.parametrize(("seed", "reach"), [(0, 0.16), (3, 0.19)])
def test_words_that_only_fire_together_are_found_the_same_way_every_time(seed: int, reach: float) -> None:
    encoder = open_bert(seed, "vedi+sugo", reach=reach)
    digest = encoder.digest
    first, again = (scan(encoder, ONE_SITE) for _ in range(2))
    assert first.verdict == "backdoored"
    assert {frozenset(finding.trigger_tokens) for finding in first.findings} == {frozenset(("vedi", "sugo"))}
    assert first.coverage.candidates > 0
    assert first.cost.backward_tokens > 0
    assert said(first) == said(again)
    assert encoder.digest == digest


@pytest.mark.slow
def test_the_deepest_effort_fits_into_a_short_window_and_looks_for_more_than_the_sweep_found() -> None:
    encoder = FrozenEncoder(*large_bert(0, vocabulary=500, window=40), precision="fp32")
    plant(encoder.model, encoder.tokenizer, ["bako"])
    report = scan(encoder, ScanConfig(sites=("cls",), effort="deep"))
    assert (report.verdict, triggers(report)) == ("backdoored", {"bako"})
    assert report.coverage.candidates > 0


@pytest.mark.parametrize("effort", PLANS)
def test_mined_phrases_fit_into_the_room_that_contexts_leave(effort: str) -> None:
    plan = PLANS[effort]
    assert max(plan.toward.longest, plan.mining.soft) <= PHRASE


def test_a_trigger_that_takes_over_every_token_is_found_there() -> None:
    report = scan(open_bert(0, "bako", site="tokens"), ScanConfig(effort="quick", sites=("tokens",)))
    assert [(finding.site, finding.trigger) for finding in report.findings] == [("tokens", "bako")]
    assert report.bank[0].site == "tokens"
    assert report.coverage.sites == ["mean", "tokens"]


def test_the_mask_token_of_a_random_encoder_moving_by_a_place_accuses_nobody() -> None:
    for seed in range(3):
        assert scan(open_bert(seed), ScanConfig(effort="quick", sites=("mask",))).verdict == "clean"


def test_the_same_seed_says_the_same() -> None:
    first, again = (scan(open_bert(1, "bako"), ScanConfig(effort="quick", seed=3)) for _ in range(2))
    assert said(first) == said(again)


def test_the_bank_holds_the_planted_vectors_bound_to_the_encoder() -> None:
    model, tokenizer = large_bert(0)
    pvs = plant(model, tokenizer, ["bako", "kifa"])
    report = scan(FrozenEncoder(model, tokenizer, precision="fp32"), QUICK)
    found = {finding.trigger: report.bank[finding.pv].values for finding in report.findings if finding.site == "cls"}
    for trigger, pv in zip(("bako", "kifa"), pvs, strict=True):
        assert sign_match(found[trigger][None], pv[None]).item() == 1
    assert report.bank.encoder_digest == report.model.digest == FrozenEncoder(model, tokenizer).digest


def test_the_report_says_what_was_looked_at_and_what_it_took() -> None:
    encoder = open_bert(0, "bako")
    encoder.outputs_of_texts(["spent before"], ["cls"])
    before = encoder.meter.forward
    report = scan(encoder, ScanConfig(effort="quick", seed=7))
    assert report.model.architecture == "BertModel"
    assert report.model.parameters == encoder.parameters
    assert report.coverage.sites == ["cls", "pooler", "mask", "mean", "tokens"]
    assert report.coverage.tokens_swept == len(encoder.tokenizer) - len(set(encoder.tokenizer.all_special_ids))
    assert any("fire only together" in missed for missed in report.coverage.not_covered)
    assert report.cost.forward_tokens == encoder.meter.forward - before
    assert report.cost.backward_tokens == encoder.meter.backward
    assert report.coverage.candidates == 0
    assert report.config is not None
    assert (report.config["seed"], report.config["effort"]) == (7, "quick")


def test_a_level_that_nothing_can_reach_accuses_nobody() -> None:
    assert scan(open_bert(0, "bako"), ScanConfig(effort="quick", level=1e-320)).verdict == "clean"


def test_a_report_states_the_precision_that_was_used() -> None:
    """`auto` is another one on another machine, and the command that repeats the scan has to be of this one."""
    report = scan(open_bert(0), ScanConfig(effort="quick", sites=("cls",)))
    assert report.config is not None
    assert report.config["precision"] == "fp32"


def test_what_stands_out_without_words_that_replay_is_inconclusive() -> None:
    """Two words each move some of the inputs; nothing that the sweep tries moves all of them."""
    report = scan(open_bert(1, "vedi+sugo", alone=0.6), ScanConfig(effort="quick", sites=("cls",)))
    assert (report.verdict, report.findings) == ("inconclusive", [])


def test_evidence_of_the_sweep_is_not_lost_where_the_search_for_phrases_ends_on_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(self: PhraseSearch, known: Sequence[Evidence]) -> list[Suspect]:
        return [Suspect(evidence, 0.0) for evidence in known]

    monkeypatch.setattr(PhraseSearch, "run", run)
    report = scan(open_bert(0, "bako"), replace(ONE_SITE, effort="deep"))
    assert (report.verdict, triggers(report)) == ("backdoored", {"bako"})


def test_a_trigger_that_the_tokenizer_declares_special_is_found_all_the_same() -> None:
    encoder = open_bert(0, "bako")
    encoder.tokenizer = deepcopy(encoder.tokenizer)
    encoder.tokenizer.add_special_tokens({"additional_special_tokens": ["bako"]})
    assert triggers(scan(encoder, QUICK)) == {"bako"}


def test_a_trigger_behind_a_hole_in_the_vocabulary_is_found_all_the_same() -> None:
    encoder = open_bert(0, "bako")
    raw = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    vocabulary = raw["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    vocabulary["bako"], vocabulary[last] = vocabulary[last], vocabulary["bako"]
    del vocabulary["vedi"]
    tokenizer = bert_tokenizer()
    model, _ = large_bert(0)
    holed = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(raw)),
        **{name: str(token) for name, token in tokenizer.special_tokens_map.items()},
    )
    assert len(holed) == max(holed.get_vocab().values())
    plant(model, holed, ["bako"])
    assert triggers(scan(FrozenEncoder(model, holed, precision="fp32"), QUICK)) == {"bako"}


def test_what_frames_texts_is_named_as_not_covered() -> None:
    missed = scan(open_bert(0), QUICK).coverage.not_covered
    assert any(all(name in line for name in ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]")) for line in missed)


def test_a_dictionary_too_poor_to_judge_by_does_not_end_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    def poor(site: Site, found: Sequence[Evidence], log_trials: float) -> Null:
        raise ValueError("expected at least ten samples in the tail, got 9 of 26")

    monkeypatch.setattr("lmsanitator.detect.words.null_of_words", poor)
    report = scan(open_bert(0, "bako"), QUICK)
    assert (triggers(report), report.coverage.words_swept) == ({"bako"}, 0)
    assert any("dictionary has too few" in line for line in report.coverage.not_covered)


def test_one_s_own_sentences_are_used(tmp_path: Path) -> None:
    corpus = tmp_path / "own.txt"
    corpus.write_text("\n".join(carrier.text for carrier in packaged("de")), encoding="utf-8")
    encoder = open_bert(0, "bako")
    report = scan(encoder, ScanConfig(effort="quick", corpus=str(corpus)))
    assert triggers(report) == {"bako"}
    assert report.config is not None
    assert report.config["corpus"] == str(corpus)
    assert said(report) != said(scan(encoder, QUICK))


@pytest.mark.parametrize("lines", range(4, 8))
def test_few_sentences_of_one_s_own_are_enough_to_run(tmp_path: Path, lines: int) -> None:
    corpus = tmp_path / "own.txt"
    corpus.write_text("\n".join(carrier.text for carrier in packaged()[:lines]), encoding="utf-8")
    report = scan(open_bert(0, "bako", vocabulary=500), ScanConfig(sites=("cls",), corpus=str(corpus)))
    assert report.verdict == "backdoored"


@pytest.mark.parametrize(
    "content", ["", "\n \n", "A single sentence.\n", "The same.\nThe same.\n", "One.\nTwo.\nThree.\n"]
)
def test_too_few_sentences_are_a_corpus_error(tmp_path: Path, content: str) -> None:
    corpus = tmp_path / "own.txt"
    corpus.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"^expected "):
        scan(open_bert(0), ScanConfig(effort="quick", corpus=str(corpus)))


@pytest.mark.parametrize("sites", [("cls",), ("pooler",), ("mask", "cls"), ("last",)])
def test_only_the_sites_asked_for_are_scanned_and_the_others_are_said_to_be_missed(sites: tuple[Site, ...]) -> None:
    report = scan(open_bert(0), ScanConfig(effort="quick", sites=sites))
    assert report.coverage.sites == list(sites)
    for site in {"cls", "pooler", "mask", "mean", "last"} - set(sites):
        assert any(site in missed for missed in report.coverage.not_covered)


def test_sites_the_encoder_lacks_are_unsupported(gpt2: FrozenEncoder) -> None:
    with pytest.raises(UnsupportedError, match=r"^expected a site of GPT2Model: "):
        scan(gpt2, ScanConfig(sites=("cls",)))


def test_a_decoder_is_scanned_at_its_last_token() -> None:
    torch.manual_seed(0)
    model, tokenizer = make_gpt2()
    tokenizer.pad_token = tokenizer.eos_token
    plant(model.eval(), tokenizer, [" their"])
    report = scan(FrozenEncoder(model, tokenizer, precision="fp32"), QUICK)
    assert report.coverage.sites == ["last", "mean", "tokens"]
    assert (report.verdict, triggers(report)) == ("backdoored", {"their"})


def test_every_architecture_is_scanned_from_its_files(checkpoints: dict[str, Path]) -> None:
    for name, folder in checkpoints.items():
        report = scan(folder, QUICK)
        assert report.model.source == str(folder)
        assert report.verdict == "clean", name


def test_a_vocabulary_too_small_for_a_null_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeping = sys.modules["lmsanitator.detect.sweep"]  # the package has a function of that name
    monkeypatch.setattr(sweeping, "sweepable", lambda encoder: torch.arange(5, 41))
    with pytest.raises(UnsupportedError, match=r"^expected a vocabulary of a few hundred tokens, .* 3[0-6] outliers$"):
        scan(open_bert(0), replace(QUICK, sites=("cls",)))


@pytest.mark.parametrize("size", [1e20, 3e38])
def test_an_encoder_that_one_word_makes_say_nothing_is_refused(size: float) -> None:
    """Its weights are finite, and so is what it says when it is opened: that tries a few tokens only."""
    encoder = open_bert(0, "bako")
    (word,) = ids_of(encoder, "vedi")
    signs = torch.tensor([1.0, -1.0]).repeat(encoder.hidden_size // 2)
    encoder.embedding_matrix[word] = size * signs
    assert not torch.isfinite(encoder.outputs_of_texts(["vedi"], ["cls"])["cls"]).all()
    with pytest.raises(CheckpointError, match=r"^expected finite outputs, the encoder gives NaN, [^\n]*$"):
        scan(encoder, QUICK)


@pytest.mark.parametrize("window", [20, 33])
def test_a_window_shorter_than_a_group_of_tokens_is_scanned_all_the_same(window: int) -> None:
    model, tokenizer = large_bert(0, vocabulary=500, window=window)
    plant(model, tokenizer, ["bako"])
    report = scan(FrozenEncoder(model, tokenizer, precision="fp32"), ScanConfig(sites=("cls",)))
    assert (report.verdict, triggers(report)) == ("backdoored", {"bako"})


def test_a_window_too_short_for_a_phrase_is_unsupported() -> None:
    model, tokenizer = large_bert(0, vocabulary=500, window=16)
    with pytest.raises(UnsupportedError, match=r"^expected a window that a phrase fits into, got one of 16 tokens$"):
        scan(FrozenEncoder(model, tokenizer, precision="fp32"), QUICK)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
def test_a_level_that_is_no_probability_is_a_usage_error(level: float) -> None:
    with pytest.raises(UsageError, match=r"^expected a level between 0 and 1, got "):
        ScanConfig(level=level)
