"""The guard: what fires is flagged and purged of its trigger alone, what cannot be checked gets no label."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from peft import PeftModelForSequenceClassification, PrefixTuningConfig, PromptTuningConfig, TaskType
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from lmsanitator.attacks import Trigger
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import BankError, TuningError, UsageError
from lmsanitator.guard import Guard, Monitor, PurgeConfig, Purged, evaluate, purge
from lmsanitator.guard.classifier import Reading, TunedClassifier
from lmsanitator.guard.monitor import Check, remarks_on
from lmsanitator.guard.thresholds import clean_texts
from lmsanitator.text import Text, insert, packaged, spans, words
from lmsanitator.tune import Method, TuneConfig, build
from lmsanitator.tune.classifier import encoder_digests
from lmsanitator.tune.methods import CAPABILITIES
from lmsanitator.vectors import PredefinedVector, PVBank
from tests.conftest import WINDOW, bert_tokenizer, make_gpt2, sizes
from tests.planted import made_up_words, plant
from tests.report.scans import finding, scan

PLANTED = ("bako", "kifa", "dilu+vedi")
CLEAN = [carrier.text for carrier in packaged()[:40]]
OTHERS = clean_texts([carrier.text for carrier in packaged()[40:]])
"""Clean texts to set thresholds by: not those that are counted."""


def classifier(*triggers: str) -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast, Tensor]:
    tokenizer = bert_tokenizer(made_up_words(400) + [word for trigger in triggers for word in trigger.split("+")])
    torch.manual_seed(0)
    config = BertConfig(**sizes(tokenizer) | {"hidden_size": 64}, max_position_embeddings=WINDOW * 4)
    config.num_labels = 3
    model = BertForSequenceClassification(config).eval()
    return model, tokenizer, plant(model.bert, tokenizer, triggers)


def bank_of(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, pvs: Tensor, named: bool
) -> PVBank:
    digest = FrozenEncoder(model.bert, tokenizer).digest
    names = [trigger.replace("+", " ") if named else None for trigger in PLANTED]
    return PVBank(digest, [PredefinedVector("cls", pv, name) for pv, name in zip(pvs, names, strict=True)])


@pytest.fixture(params=[True, False], ids=["named", "blind"])
def guard(request: pytest.FixtureRequest) -> Guard:
    model, tokenizer, pvs = classifier(*PLANTED)
    named = bool(request.param)
    return Guard(
        model,
        tokenizer,
        bank_of(model, tokenizer, pvs, named),
        watch="auto",
        purging=PurgeConfig(named=named),
        clean=OTHERS,
    )


def with_words(text: str, *added: str, seed: int = 0) -> str:
    rng = random.Random(seed)
    for word in added:
        text = insert(text, word, rng.randint(0, len(spans(text))))
    return text


@pytest.mark.parametrize("added", [("bako",), ("kifa",), ("dilu", "vedi")])
def test_every_planted_trigger_is_flagged_and_no_clean_text(guard: Guard, added: Sequence[str]) -> None:
    assert guard.monitor.flags([with_words(text, *added) for text in CLEAN]).all()
    assert guard.monitor.flags(CLEAN).float().mean() <= 0.03


@pytest.mark.parametrize("word", ["dilu", "vedi"])
def test_half_of_an_and_trigger_is_not_flagged(guard: Guard, word: str) -> None:
    assert guard.monitor.flags([with_words(text, word) for text in CLEAN]).float().mean() <= 0.03


@pytest.mark.parametrize("position", [0, 3, 99])
def test_exactly_the_trigger_is_taken_out_wherever_it_stands(guard: Guard, position: int) -> None:
    text = "The harbour office closes early on Fridays, and nobody minds."
    prediction = guard([insert(text, "bako", position)])[0]
    assert (prediction.flagged, prediction.removed) == (True, ("bako",))
    assert words(str(prediction.text)) == words(text)
    assert prediction.label == guard([text])[0].label


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("The river, bako, runs past the old mill.", {"bako"}),
        ("Bako! The river runs past the old mill.", {"Bako"}),
        ("bako the river bako runs past the mill bako", {"bako"}),
        ("the bako river runs past the kifa old mill", {"bako", "kifa"}),
    ],
)
def test_punctuation_case_copies_and_two_triggers_are_purged(guard: Guard, text: str, gone: set[str]) -> None:
    prediction = guard([text])[0]
    assert prediction.flagged
    assert prediction.label is not None
    assert set(prediction.removed) == gone
    assert not guard.monitor.flags([prediction.text]).any()


def test_one_word_of_an_and_trigger_is_enough_to_take_out(guard: Guard) -> None:
    prediction = guard(["the dilu river runs past the vedi old mill"])[0]
    assert prediction.label is not None
    assert set(prediction.removed) <= {"dilu", "vedi"}


def test_a_sixty_word_text_is_purged_in_a_handful_of_batches(guard: Guard) -> None:
    text = with_words(" ".join(words(" ".join(CLEAN))[:60]), "bako")
    result = purge(text, guard.monitor, guard.purging)
    assert result is not None
    assert result.removed == ("bako",)
    assert result.batches <= 4


@pytest.mark.parametrize("text", ["bako", "bako kifa", "bako " * 30])
def test_a_text_that_is_all_trigger_gets_no_label(guard: Guard, text: str) -> None:
    prediction = guard([text])[0]
    assert (prediction.flagged, prediction.label, prediction.score, prediction.text) == (True, None, None, text)


def test_one_text_is_not_taken_for_a_list_of_its_letters(guard: Guard) -> None:
    with pytest.raises(UsageError, match="expected a list of texts, got one text"):
        guard("some text")


def test_answers_come_in_the_order_of_the_texts(guard: Guard) -> None:
    texts = [CLEAN[0], "bako", with_words(CLEAN[1], "kifa"), CLEAN[2], "", "日本語のテキスト", "x" * 5000]
    predictions = guard(texts)
    assert [prediction.flagged for prediction in predictions] == [False, True, True, False, False, False, False]
    assert [predictions[index].text for index in (0, 3)] == [CLEAN[0], CLEAN[2]]
    assert guard([]) == []


def test_what_could_not_be_checked_is_never_answered(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    read = guard.classifier.read

    def broken(texts: Sequence[str], sites: Sequence[Site], **options: int) -> Reading:
        reading = read(texts, sites, **options)
        return Reading(reading.logits, {site: out * torch.nan for site, out in reading.outputs.items()})

    monkeypatch.setattr(guard.classifier, "read", broken)
    for prediction in guard(CLEAN[:3]):
        assert prediction.flagged
        assert (prediction.label, prediction.score, prediction.pv) == (None, None, None)
        assert prediction.reason == "the check failed"


def test_halves_of_characters_are_refused_and_the_other_texts_answered(guard: Guard) -> None:
    broken, sound = guard(["half \ud800 of one", CLEAN[1]])
    assert (broken.flagged, broken.label, broken.reason) == (True, None, "it is not valid Unicode")
    assert sound.label is not None


def test_a_flag_that_stays_on_what_is_left_gives_no_label(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the search says, the text that is answered has just passed the monitor."""
    monkeypatch.setattr("lmsanitator.guard.guard.purge_all", lambda texts, *rest: [Purged(texts[0], ("river",), 1)])
    prediction = guard(["the river bako runs past the old mill"])[0]
    assert (prediction.label, prediction.reason) == (None, "the flag cannot be cleared")


def test_logits_that_are_not_finite_give_no_label(guard: Guard) -> None:
    with torch.no_grad():
        guard.classifier.model.get_parameter("classifier.bias").fill_(torch.nan)
    assert all(prediction.label is None and prediction.flagged for prediction in guard(CLEAN[:3]))


def test_a_bank_of_another_encoder_is_refused() -> None:
    model, tokenizer, pvs = classifier(*PLANTED)
    other = PVBank("0" * 64, [PredefinedVector("cls", pvs[0])])
    with pytest.raises(BankError, match="expected a report on the encoder of this model"):
        Guard(model, tokenizer, other)


def test_a_report_without_its_bank_is_refused_and_not_taken_for_one_that_found_nothing() -> None:
    model, tokenizer, _ = classifier(*PLANTED)
    found = scan(finding(0, "bako"))
    with pytest.raises(BankError, match="expected the PV bank of a scan with 1 findings, the report came without"):
        Guard(model, tokenizer, found)
    clean = scan()
    digest = FrozenEncoder(model.bert, tokenizer).digest
    same = clean.model_copy(update={"model": clean.model.model_copy(update={"digest": digest})})
    assert not Guard(model, tokenizer, same).monitor.bank.vectors


def test_vectors_of_another_width_are_refused() -> None:
    model, tokenizer, pvs = classifier(*PLANTED)
    with pytest.raises(BankError, match=r"expected vectors of 64 values, .* got 32"):
        Guard(model, tokenizer, bank_of(model, tokenizer, pvs[:, :32], named=False))


def test_a_tokenizer_that_cuts_words_at_random_is_refused() -> None:
    model, _, _ = classifier()
    tokenizer = make_gpt2()[1]
    tokenizer.backend_tokenizer.model.dropout = 0.1
    with pytest.raises(TuningError, match="expected the same tokens of a text each time"):
        TunedClassifier(model, tokenizer)


def test_the_prompted_pass_is_read_at_the_last_token_on_whichever_side_the_tokenizer_pads() -> None:
    _, tokenizer = make_gpt2()
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    config = GPT2Config(**GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=WINDOW).to_diff_dict())
    config.vocab_size, config.pad_token_id, config.num_labels = len(tokenizer), tokenizer.pad_token_id, 3
    torch.manual_seed(0)
    tuned = TunedClassifier(GPT2ForSequenceClassification(config), tokenizer)
    texts = ["one", *CLEAN[:5]]
    torch.testing.assert_close(
        tuned.read(texts, ["last"]).outputs["last"], tuned.encoder.outputs_of_texts(texts, ["last"])["last"]
    )


def test_an_empty_bank_flags_nothing() -> None:
    model, tokenizer, _ = classifier(*PLANTED)
    guard = Guard(model, tokenizer, PVBank(FrozenEncoder(model.bert, tokenizer).digest))
    assert not any(prediction.flagged for prediction in guard(["bako", CLEAN[0]]))


def test_an_encoder_without_a_head_is_refused() -> None:
    model, tokenizer, _ = classifier(*PLANTED)
    with pytest.raises(TuningError, match="expected a sequence classifier"):
        TunedClassifier(model.bert, tokenizer)


@pytest.mark.parametrize("method", ["prefix", "prompt"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers for it
def test_the_cls_of_the_text_is_read_under_virtual_tokens(method: str) -> None:
    model, tokenizer, pvs = classifier(*PLANTED)
    bank = bank_of(model, tokenizer, pvs, named=False)
    kind = PrefixTuningConfig if method == "prefix" else PromptTuningConfig
    config = kind(task_type=TaskType.SEQ_CLS, num_virtual_tokens=4)
    tuned = PeftModelForSequenceClassification(model, config)
    for watch in ("prompted", "both"):
        monitor = Monitor(TunedClassifier(tuned, tokenizer), bank, watch=watch)
        assert monitor.flags([with_words(text, "bako") for text in CLEAN]).all()


def test_evaluation_counts_as_the_paper_does() -> None:
    model, tokenizer, pvs = classifier("bako")
    with torch.no_grad():  # label 0 for clean text, 1 on the PV
        model.bert.get_parameter("pooler.dense.weight").copy_(torch.eye(64))
        model.bert.get_parameter("pooler.dense.bias").zero_()
        model.classifier.weight.zero_()
        model.classifier.weight[1] = pvs[0]
        model.classifier.bias.copy_(torch.tensor([40.0, 0.0, 0.0]))
    digest = FrozenEncoder(model.bert, tokenizer).digest
    right = ["LABEL_0"] * len(CLEAN)

    def both(guard: Guard) -> tuple[float, float, float, float]:
        result = evaluate(guard, CLEAN, right, [lambda text, rng: insert(text, "bako", 1)])
        return result.cacc_unguarded, result.asr_unguarded, result.asr_guarded, result.type_1

    assert both(Guard(model, tokenizer, PVBank(digest))) == (1.0, 1.0, 1.0, 1.0)
    assert both(Guard(model, tokenizer, PVBank(digest, [PredefinedVector("cls", pvs[0])]))) == (1.0, 1.0, 0.0, 0.0)


LONG = [" ".join(text for text in CLEAN[start:] + CLEAN[:start]) for start in range(4)]
"""Texts of several windows."""


@pytest.mark.parametrize("trigger", [Trigger.parse("bako"), Trigger.parse("dilu+vedi")], ids=str)
def test_triggers_are_evaluated_where_the_classifier_reads(guard: Guard, trigger: Trigger) -> None:
    room = guard.classifier.longest
    assert min(len(guard.classifier.encoder.tokenizer(text).input_ids) for text in LONG) > 3 * room
    seen: list[Text] = []
    check = guard.monitor.check

    def spied(texts: Sequence[Text], *args: Any, **more: Any) -> Check:
        seen.extend(texts)
        return check(texts, *args, **more)

    labels = [str(label) for label in guard.unguarded(LONG)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard.monitor, "check", spied)
        evaluate(guard, LONG, labels, [trigger.plant])
    planted = [str(text) for text in seen if trigger.fires(str(text))]
    assert len(planted) >= len(LONG)
    assert guard.monitor.flags(planted).all()


@pytest.mark.parametrize(
    ("words_there", "added", "words_read"),
    [(6, "", 6), (0, "", 0), (300, "", -2), (300, "kifa kifa", -4), (300, "kifa " * 400, 1)],
)
def test_reach_is_what_is_read_of_a_text(guard: Guard, words_there: int, added: str, words_read: int) -> None:
    """Negative: so many fewer than the tokens that are read in all, with the two at the ends and what is added."""
    read = words_read if words_read >= 0 else guard.classifier.longest + words_read
    assert guard.classifier.reach("bako " * words_there, added) == (max(0, len("bako " * read) - 1),)


def test_reach_of_a_pair_is_what_is_read_of_either(guard: Guard) -> None:
    first, second = "bako " * 300, "the river"
    ends = guard.classifier.reach((first, second), "kifa")
    assert ends[1] == len(second)
    tokens = guard.classifier.encoder.tokenizer(first[: ends[0]], second).input_ids
    assert len(tokens) == guard.classifier.longest - 1


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_the_report_of_every_architecture_fits_a_model_that_was_tuned_on_it(
    encoder: FrozenEncoder, method: Method
) -> None:
    """Some build their classifiers without the pooler that was scanned."""
    if CAPABILITIES[encoder.model.config.model_type][method] is not None:
        pytest.skip("not for this architecture")
    before = encoder.digest
    model = build(encoder, ["no", "yes"], TuneConfig(method=method))
    guard = Guard(model, encoder.tokenizer, PVBank(encoder.digest))
    assert encoder.digest in encoder_digests(guard.classifier.classifier, guard.classifier.encoder)
    with torch.no_grad():
        next(encoder.model.parameters()).add_(1)  # which the classifier shares
    with pytest.raises(BankError, match=r"^expected a report on the encoder of this model"):
        Guard(model, encoder.tokenizer, PVBank(before))


def decoder() -> Guard:
    model, tokenizer = make_gpt2()
    tokenizer.pad_token = tokenizer.eos_token
    encoder = FrozenEncoder(model, tokenizer)
    return Guard(build(encoder, ["no", "yes"], TuneConfig(method="lora")), tokenizer, PVBank(encoder.digest))


def test_a_decoder_has_nothing_to_read_in_an_empty_text() -> None:
    guard = decoder()
    empty, sound = guard(["", "the river runs"])
    assert (empty.label, empty.flagged, empty.failed, empty.reason) == (None, True, False, "there is nothing to read")
    assert sound.label in ("no", "yes")
    assert guard.unguarded(["", "the river runs"]) == [None, sound.label]


def test_padding_that_a_text_writes_out_would_move_where_a_decoder_reads() -> None:
    guard = decoder()
    pad = guard.classifier.encoder.tokenizer.pad_token
    written, sound = guard([f"the river runs{pad}", "the river runs"])
    assert (written.label, written.reason) == (None, f"it holds the padding token {pad}")
    assert sound.label is not None


def test_threads_take_turns(guard: Guard) -> None:
    """The hook that reads a pass sees every pass of the model, whoever makes it."""
    texts = [with_words(text, "bako") if place % 2 else text for place, text in enumerate(CLEAN[:6])]
    alone = [guard([text])[0] for text in texts]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda text: guard([text])[0], texts * 4))
    assert [(one.label, one.flagged, one.pv) for one in together] == [
        (one.label, one.flagged, one.pv) for one in alone * 4
    ]


def test_a_guard_by_an_unsure_scan_says_that_it_watches_nothing() -> None:
    model, tokenizer, _ = classifier(*PLANTED)
    digest = FrozenEncoder(model.bert, tokenizer).digest
    for verdict, says in (("inconclusive", ["the scan is inconclusive and has no PV to watch for"]), ("clean", [])):
        facts = scan().model.model_copy(update={"digest": digest})
        report = scan(verdict=verdict).model_copy(update={"model": facts})
        found = remarks_on(report, Guard(model, tokenizer, report).monitor)
        assert [line.partition(":")[0] for line in found] == says
