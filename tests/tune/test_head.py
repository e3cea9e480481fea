"""Heads at a site: they read what the site says, under every method, and are the same after saving."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import PreTrainedModel

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import TuningError, UnsupportedError, UsageError
from lmsanitator.tune import (
    METHODS,
    Example,
    Method,
    SiteClassifier,
    Task,
    TuneConfig,
    build,
    load_tuned,
    make_inputs,
    predict,
    tune,
)
from lmsanitator.tune.adapter import classifier_of
from lmsanitator.tune.head import label_vectors
from lmsanitator.tune.methods import VectorSite
from tests.tune.test_train import NOTES, TASK, TEXTS, edit

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it

SITES: tuple[VectorSite, ...] = ("cls", "pooler", "mean", "mask", "last")
LABELS = ("water", "time")
QUICK = TuneConfig(virtual_tokens=4, max_steps=2, batch_size=8)


def site_head(encoder: FrozenEncoder, site: VectorSite, method: Method = "prefix") -> SiteClassifier:
    inside = classifier_of(build(encoder, LABELS, TuneConfig(method=method, site=site)))
    assert isinstance(inside, SiteClassifier)
    return inside


@pytest.mark.parametrize("site", SITES)
def test_the_head_reads_what_the_scan_reads_at_its_site(bert: FrozenEncoder, site: VectorSite) -> None:
    """Long texts too: the mask token stays in them."""
    head = site_head(bert, site)
    texts = [*TEXTS, "water " * 500]
    logits = head(**make_inputs(head, bert.tokenizer, texts, bert.window)).logits
    read = bert.outputs_of_texts(texts, [site])[site]
    if site not in ("mask", "last"):  # the scan leaves room for a mask token, asked for or not
        logits, read = logits[:-1], read[:-1]
    if site == "last":
        logits, read = logits[:-1], read[:-1]
    assert_close(logits, head.classifier(read))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("method", ["prompt", "p-tuning"])
def test_virtual_tokens_before_the_text_are_never_read(
    bert: FrozenEncoder, site: VectorSite, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(bert, LABELS, TuneConfig(method=method, site=site, virtual_tokens=4))
    head = classifier_of(model)
    assert isinstance(head, SiteClassifier)
    inputs = make_inputs(head, bert.tokenizer, TEXTS)
    with torch.no_grad():
        expected = model(**inputs).logits
        encoder = head.encoder

        def blank(module: torch.nn.Module, given: object, out: dict[str, torch.Tensor]) -> object:
            out["last_hidden_state"][:, :4] = torch.nan
            return out

        hook = encoder.register_forward_hook(blank)
        assert torch.equal(model(**inputs).logits, expected)
        hook.remove()


def test_without_its_adapter_the_head_reads_the_text_as_well(bert: FrozenEncoder) -> None:
    model = build(bert, LABELS, TuneConfig(method="prompt", site="cls"))
    head = classifier_of(model)
    assert isinstance(head, SiteClassifier)
    inputs = make_inputs(head, bert.tokenizer, TEXTS)
    logits = head(**inputs).logits
    assert_close(logits, head.classifier(bert.outputs_of_texts(TEXTS, ["cls"])["cls"]))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("method", METHODS)
def test_a_head_at_a_site_is_the_same_after_saving(
    bert: FrozenEncoder, method: Method, site: VectorSite, tmp_path: Path
) -> None:
    config = TuneConfig(method=method, site=site, virtual_tokens=4, rank=4, max_steps=2, batch_size=8)
    tuned = tune(bert, TASK, config)
    expected = predict(tuned.model, tuned.tokenizer, TEXTS)
    alone = torch.cat([predict(tuned.model, tuned.tokenizer, [text]) for text in TEXTS])
    assert_close(alone, expected)
    tuned.save(tmp_path / "tuned")
    opened = load_tuned(tmp_path / "tuned")
    assert torch.equal(predict(opened.model, opened.tokenizer, TEXTS), expected)
    assert (opened.site, tuned.site) == (site, site)
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert 'load_tuned(".")' in card
    assert "without lmsanitator" not in card


@pytest.mark.parametrize("site", ["tokens", 5, None])
def test_a_stored_site_that_is_none_is_refused(bert: FrozenEncoder, site: object, tmp_path: Path) -> None:
    tune(bert, TASK, QUICK).save(tmp_path / "tuned")
    edit(tmp_path / "tuned" / NOTES, site=site)
    with pytest.raises(TuningError, match=r"expected a site of auto, cls, .* in lmsanitator\.json, got"):
        load_tuned(tmp_path / "tuned")


def test_a_site_the_encoder_lacks_is_refused(gpt2: FrozenEncoder) -> None:
    with pytest.raises(UnsupportedError, match="expected a site of GPT2Model: mean, last, tokens; got mask"):
        build(gpt2, LABELS, TuneConfig(site="mask"))
    config = TuneConfig()
    object.__setattr__(config, "site", "tokens")  # the tests' type checker would stop it before the config does
    with pytest.raises(UsageError, match="for the head; got tokens"):
        config.__post_init__()


def test_a_verbalizer_starts_at_the_label_names(encoder: FrozenEncoder) -> None:
    """Where they are words; the labels of a task that has none get random vectors."""
    vectors = label_vectors(encoder, LABELS)
    assert vectors is not None
    assert_close(vectors.norm(dim=1), torch.ones(2))
    assert_close(vectors[0], -vectors[1])
    assert label_vectors(encoder, ("0", "1")) is None
    if "mask" in encoder.sites:
        method: Method = "prompt" if encoder.model.config.model_type == "mpnet" else "prefix"
        assert_close(site_head(encoder, "mask", method).classifier.weight.detach(), vectors)


def pair_task() -> Task:
    """A task that is in the second text alone."""
    rows = tuple(Example("the people", index % 2, ("of the water", "a time")[index % 2]) for index in range(40))
    return Task(LABELS, rows, rows[:10], rows[:10])


@pytest.mark.parametrize("config", [TuneConfig(method=method) for method in METHODS] + [TuneConfig(site="mask")])
def test_pairs_are_learnt_from_their_second_text(bert: FrozenEncoder, config: TuneConfig) -> None:
    chosen = TuneConfig(
        method=config.method, site=config.site, epochs=20, patience=8, batch_size=8, learning_rate=1e-2,
        head_learning_rate=3e-2,
    )  # fmt: skip
    assert tune(bert, pair_task(), chosen).accuracy == 1.0


def test_a_pair_has_separators_types_and_both_its_texts_when_it_is_cut(bert: FrozenEncoder) -> None:
    head = site_head(bert, "mask")
    tokenizer = bert.tokenizer
    inputs = make_inputs(head, tokenizer, [("water " * 90, "time " * 90), ("water", "time")], 20)
    rows = [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in inputs["input_ids"].tolist()]
    assert rows[0] == "[CLS] " + "water " * 8 + "[SEP] " + "time " * 8 + "[MASK] [SEP]"
    assert rows[1] == "[CLS] water [SEP] time [MASK] [SEP]" + " [PAD]" * 14
    assert inputs["token_type_ids"][1].tolist() == [0, 0, 0, 1, 1, 1] + [0] * 14
    assert inputs["attention_mask"].sum(1).tolist() == [20, 6]


def test_token_types_are_for_pairs_on_encoders_that_have_them(encoder: FrozenEncoder) -> None:
    model: PreTrainedModel = encoder.model
    has_types = model.config.model_type == "bert"
    assert ("token_type_ids" in make_inputs(model, encoder.tokenizer, [("a", "b")])) == has_types
    assert "token_type_ids" not in make_inputs(model, encoder.tokenizer, ["a"])
