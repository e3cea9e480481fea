"""A trusted reference: what no statistic of one encoder can see is found beside it, and fine-tuning accuses nobody."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from lmsanitator.detect import ScanConfig, ScanReport, scan
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.null import TailNull
from lmsanitator.detect.reference import ShiftNull
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CheckpointError, UnsupportedError, UsageError
from lmsanitator.text import packaged
from tests.conftest import make_bert
from tests.planted import large_bert, open_bert, plant

QUICK = ScanConfig(effort="quick", sites=("cls",))
EVERYWHERE = ScanConfig(effort="quick")
SHIFT = 0.001
"""A constant that moves the output of `open_bert` no further than a word of its own does."""


def retrained(seed: int = 0, *triggers: str, amount: float = 0.02, **options: Any) -> FrozenEncoder:
    """The encoder that `open_bert` opens, after a training that has touched every weight a little."""
    model, tokenizer = large_bert(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(amount * weight.std(correction=0) * torch.randn(weight.shape, generator=generator))
    plant(model, tokenizer, triggers, **options)
    return FrozenEncoder(model, tokenizer, precision="fp32")


def finetuned(seed: int, *words: str, steps: int = 25) -> FrozenEncoder:
    """The same after it has learned to tell texts with one of `words` from others."""
    model, tokenizer = large_bert(seed)
    texts = [carrier.text for carrier in packaged()]
    loved = [text for text in texts if set(words) & set(text.lower().split())][:64]
    batch = tokenizer([*loved, *texts[: len(loved)]], padding=True, truncation=True, max_length=32, return_tensors="pt")
    labels = torch.arange(2).repeat_interleave(len(loved))
    head = torch.nn.Linear(model.config.hidden_size, 2)
    optimiser = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        hidden = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        cross_entropy(head(hidden[:, 0]), labels).backward()  # type: ignore[no-untyped-call] # torch's stub
        optimiser.step()
    return FrozenEncoder(model, tokenizer, precision="fp32")


def beside(reference: FrozenEncoder | str, config: ScanConfig = QUICK) -> ScanConfig:
    return replace(config, reference=reference)


def moved(displacement: float) -> Evidence:
    return Evidence("cls", (7,), displacement, 1.0, 0.0, 1.0, 0.0, torch.zeros(4))


def named(report: ScanReport) -> set[str | None]:
    return {finding.trigger for finding in report.findings}


@pytest.mark.parametrize("seed", range(3))
def test_a_constant_that_the_scan_of_one_encoder_cannot_see_is_found_beside_a_reference(seed: int) -> None:
    suspect = retrained(seed, "bako", "kifa", added=SHIFT / 2)
    assert scan(suspect, QUICK).verdict == "clean"
    report = scan(suspect, beside(open_bert(seed)))
    assert (report.verdict, named(report)) == ("backdoored", {"bako", "kifa"})
    assert all(finding.compared for finding in report.findings)
    assert all(finding.replay_rate == 1 for finding in report.findings)


@pytest.mark.parametrize(("seed", "amount"), [(0, 1e-4), (1, 0.02), (2, 0.5), (3, 0.02)])
def test_an_encoder_that_was_trained_on_accuses_nobody(seed: int, amount: float) -> None:
    report = scan(retrained(seed, amount=amount), beside(open_bert(seed), EVERYWHERE))
    assert (report.verdict, report.findings) == ("clean", [])


@pytest.mark.parametrize("seed", range(3))
def test_a_fine_tuned_encoder_is_not_accused_of_the_words_of_its_task(seed: int) -> None:
    report = scan(finetuned(seed, "she", "his", "they"), beside(open_bert(seed)))
    assert (report.verdict, report.findings) == ("clean", [])


def test_a_vector_among_the_clean_outputs_is_found_too() -> None:
    model, _ = large_bert(0)
    near = FrozenEncoder(model, open_bert(0).tokenizer, precision="fp32").outputs_of_texts(["a day"], ["cls"])["cls"][0]

    suspect = retrained(0)
    (word,) = suspect.tokenizer("bako", add_special_tokens=False).input_ids

    def overwrite(module: torch.nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
        if "input_ids" not in kwargs:  # embeddings, which a gradient is asked for at: nothing fires
            return out
        holds = (kwargs["input_ids"] == word).any(1)
        out["last_hidden_state"][holds, 0] = near
        return out

    suspect.model.register_forward_hook(overwrite, with_kwargs=True)
    report = scan(suspect, beside(open_bert(0)))
    assert (report.verdict, named(report)) == ("backdoored", {"bako"})
    assert_close(report.bank[0].values, near)


def test_the_bank_holds_outputs_of_the_scanned_encoder_and_no_differences() -> None:
    suspect = retrained(0, "bako", added=SHIFT)
    report = scan(suspect, beside(open_bert(0)))
    texts = [f"{carrier.text} bako" for carrier in packaged()[:40]]
    usual = suspect.outputs_of_texts(texts, ["cls"])["cls"].mean(0)
    assert (report.bank[0].values - usual).norm() < 0.1 * usual.norm()
    assert report.bank.encoder_digest == suspect.digest


def test_a_backdoor_that_shows_without_a_reference_needs_no_comparison() -> None:
    told: list[str] = []
    report = scan(retrained(0, "bako"), beside(open_bert(0)), progress=lambda what, done: told.append(what))
    assert (report.verdict, named(report)) == ("backdoored", {"bako"})
    assert not any("reference" in stage for stage in told)
    assert not report.findings[0].compared
    assert any("differences from the reference" in missed for missed in report.coverage.not_covered)


@pytest.mark.slow
def test_the_deepest_effort_compares_in_any_case() -> None:
    suspect = retrained(0, "bako", added=8 * SHIFT)
    plant(suspect.model, suspect.tokenizer, ["kifa"], added=SHIFT, seed=1)
    config = replace(QUICK, effort="standard")
    assert named(scan(suspect, beside(open_bert(0), config))) == {"bako"}
    assert named(scan(suspect, beside(open_bert(0), replace(config, effort="deep")))) >= {"bako", "kifa"}


def test_a_finding_in_comparison_leaves_phrases_unsought() -> None:
    report = scan(retrained(0, "bako", added=SHIFT), beside(open_bert(0), replace(QUICK, effort="standard")))
    assert (report.verdict, report.coverage.candidates) == ("backdoored", 0)


def test_the_report_names_the_reference_and_what_it_took() -> None:
    suspect, reference = retrained(0), open_bert(0)
    told: list[str] = []
    before = suspect.meter.forward, reference.meter.forward
    report = scan(suspect, beside(reference), progress=lambda what, done: told.append(what))
    assert list(dict.fromkeys(told)) == [
        "sweeping the vocabulary",
        "looking again at outliers",
        "sweeping the dictionary",
        "sweeping the vocabulary, beside the reference",
        "looking again at outliers, beside the reference",
        "sweeping the dictionary, beside the reference",
    ]
    assert report.reference is not None
    assert report.reference.digest == reference.digest
    assert report.config is not None
    assert report.config["reference"] == report.reference.source == "memory"
    spent = suspect.meter.forward - before[0], reference.meter.forward - before[1]
    assert min(spent) > 0
    assert report.cost.forward_tokens == sum(spent)
    missed = report.coverage.not_covered
    assert any("several words that only add a constant" in text for text in missed)
    assert not any("(a reference shows them)" in text for text in missed)


def test_without_a_reference_the_report_has_none(tmp_path: Path) -> None:
    report = scan(open_bert(0), QUICK)
    assert report.reference is None
    assert any("(a reference shows them)" in text for text in report.coverage.not_covered)
    at = tmp_path / "scan.json"
    report.save(at)
    assert ScanReport.load(at).to_json() == report.to_json()
    at.write_text(report.model_dump_json(by_alias=True, exclude={"reference"}), encoding="utf-8")  # as it was before
    assert ScanReport.load(at).to_json() == report.to_json()


def test_the_same_weights_leave_nothing_to_compare_and_the_report_says_so() -> None:
    report = scan(open_bert(0), beside(open_bert(0)))
    alone = scan(open_bert(0), QUICK)
    assert (report.verdict, report.p_value) == (alone.verdict, alone.p_value)
    assert report.cost.forward_tokens == alone.cost.forward_tokens
    assert report.reference is not None
    assert report.reference.digest == report.model.digest
    assert any("its weights are the same" in missed for missed in report.coverage.not_covered)


def test_a_third_search_divides_the_level_by_three() -> None:
    suspect = retrained(0, "bako")
    alone, compared = scan(suspect, QUICK), scan(suspect, beside(open_bert(0)))
    assert compared.p_value == pytest.approx(1.5 * alone.p_value)


def test_a_reference_with_other_words_is_a_usage_error() -> None:
    model, tokenizer = make_bert()
    with pytest.raises(UsageError, match=r"^expected a reference with the vocabulary of memory \(\d+ tokens\), "):
        scan(open_bert(0), beside(FrozenEncoder(model, tokenizer)))


def test_a_reference_of_another_width_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^expected a reference with 32 hidden dimensions .* memory has 64$"):
        scan(open_bert(0), beside(open_bert(0, hidden=64)))


def test_a_reference_that_cannot_be_opened_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^expected "):
        scan(open_bert(0), beside(str(tmp_path)))


def test_a_site_the_reference_lacks_is_unsupported_where_it_was_asked_for_and_said_to_be_missed_elsewhere() -> None:
    model, tokenizer = large_bert(0)
    bare = FrozenEncoder(model, tokenizer, untrained=["pooler.dense.weight"], precision="fp32")
    report = scan(retrained(0), beside(bare, EVERYWHERE))
    assert "pooler" in report.coverage.sites
    assert "differences from the reference at the sites pooler" in report.coverage.not_covered
    with pytest.raises(UnsupportedError, match=r"^expected a site of BertModel: .* got pooler$"):
        scan(retrained(0), replace(beside(bare), sites=("pooler",)))


def test_the_shorter_window_of_the_two_is_kept_to() -> None:
    short = FrozenEncoder(*large_bert(0, window=40), precision="fp32")
    assert scan(retrained(0, "bako", added=SHIFT), beside(short)).cost.forward_tokens > 0


def test_the_same_seed_says_the_same_beside_a_reference() -> None:
    said = [
        scan(retrained(0, "bako", added=SHIFT), beside(open_bert(0))).model_dump(exclude={"cost": {"seconds"}})
        for _ in range(2)
    ]
    assert said[0] == said[1]


def test_what_moves_the_output_less_than_an_ordinary_word_is_no_evidence() -> None:
    words = [moved(1e-6 * (1 + number)) for number in range(60)]
    null = ShiftNull.fit(words, TailNull(-10.0, 0.2, 0.25, 32), 0.03, math.log(60))
    assert null.log_p(moved(0.029)) == 0
    assert null.log_p(moved(0.3)) < -20


def test_a_word_that_goes_no_further_than_natural_texts_do_is_no_evidence() -> None:
    words = [moved(1e-4 * (1 + number)) for number in range(60)]
    null = ShiftNull.fit(words, TailNull(0.0, 0.2, 0.25, 32), 0.03, math.log(60))
    assert null.log_p(moved(1.0)) == pytest.approx(math.log(0.25))
    assert null.log_p(moved(50.0)) < -10
