"""A classifier of texts or of words on a frozen encoder: a head, PEFT's adapter, nothing trained yet."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModelForSequenceClassification, PeftModelForTokenClassification, TaskType
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import TuningError, UnsupportedError
from lmsanitator.tune.adapter import adapter_config, pooler_is_random, shrink_prefix
from lmsanitator.tune.head import site_classifier
from lmsanitator.tune.methods import TuneConfig, check_supported, input_length
from lmsanitator.tune.tagging import check_bio

_BUILT_ON = "lmsanitator_built_on"
_POOLING = ("pooler", "pooler_activation")


def build(
    encoder: FrozenEncoder | str | Path, labels: Sequence[str], config: TuneConfig
) -> PeftModelForSequenceClassification:
    """A sequence classifier on the encoder with an adapter and a head, neither trained yet.

    The encoder's weights are shared with it, frozen. The adapter and every module that no checkpoint holds (the head;
    the pooler where this one has none) are initialised by seed, trainable, and saved by PEFT.

    With `prompt` and `p-tuning` PEFT puts the n virtual tokens before [CLS], so that [CLS] sits at index n and an
    architecture's own head that reads the first position (BERT's pooler among them) reads a virtual token. This is
    PEFT's ordinary behaviour, and what its users run, so it is kept for the site `auto`: whoever watches the site `cls`
    of such a model has to watch index n. The heads of the other sites read the text itself.

    Args:
        encoder: an open encoder, or where to open one.
        labels: the label names, in the order of the logits.

    Raises:
        UnsupportedError: the architecture does not take the method, or has no such site.
        TuningError: fewer than two labels, or no room for the virtual tokens.
    """
    opened = encoder if isinstance(encoder, FrozenEncoder) else FrozenEncoder.open(encoder)
    check_supported(opened, config.method, config.site)
    _check(opened, labels, config)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads a property that transformers is about to rename
        torch.manual_seed(config.seed)
        labelled = _with_labels(opened, labels)
        if config.site == "auto":
            classifier = _own_classifier(opened, labelled)
        else:
            classifier = site_classifier(opened, labelled, labels, config.site, config.shift)
        remember_encoder(classifier, opened)
        classifier.requires_grad_(False)
        model = PeftModelForSequenceClassification(
            classifier, adapter_config(opened, classifier, config, TaskType.SEQ_CLS)
        )
    if config.method == "prefix":
        shrink_prefix(model)
    # eval mode for good: with the encoder frozen, its dropout would only add noise to the adapter's gradient
    return model.to(opened.device).eval()


def build_tagger(
    encoder: FrozenEncoder | str | Path, labels: Sequence[str], config: TuneConfig
) -> PeftModelForTokenClassification:
    """A classifier of every token, with an adapter and the architecture's own head, neither trained yet; all else as
    `build` does it. With `prompt` and `p-tuning` its logits begin with those of the virtual tokens (`word_logits`).

    Raises:
        UnsupportedError: the architecture does not take the method or has no such head, or a site is asked for.
        TuningError: no room for the virtual tokens.
        CorpusError: labels that are not BIO.
    """
    opened = encoder if isinstance(encoder, FrozenEncoder) else FrozenEncoder.open(encoder)
    if config.site != "auto":
        raise UnsupportedError(f"expected the site auto to label words by, got {config.site}: every token has a head")
    check_supported(opened, config.method, "tokens")
    check_bio(labels)
    _check(opened, labels, config)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as above
        torch.manual_seed(config.seed)
        tagger = _own_tagger(opened, _with_labels(opened, labels))
        tagger.requires_grad_(False)
        model = PeftModelForTokenClassification(tagger, adapter_config(opened, tagger, config, TaskType.TOKEN_CLS))
    if config.method == "prefix":
        shrink_prefix(model)
    return model.to(opened.device).eval()


def _check(encoder: FrozenEncoder, labels: Sequence[str], config: TuneConfig) -> None:
    input_length(encoder, config)
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise TuningError(f"expected two or more different labels, got {', '.join(labels) or 'none'}")


def _with_labels(encoder: FrozenEncoder, labels: Sequence[str]) -> PreTrainedConfig:
    """The encoder's configuration, that of a classifier with these labels."""
    config: PreTrainedConfig = copy.deepcopy(encoder.model.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    config.pad_token_id = encoder.tokenizer.pad_token_id  # decoders look for the last token that is not padding
    return config


def remember_encoder(classifier: PreTrainedModel, encoder: FrozenEncoder) -> None:
    """Keep with a classifier which encoder it was built on: some architectures build theirs without the pooler that was
    scanned (RoBERTa, MPNet), and PEFT's prefixes need them so."""
    vars(classifier)[_BUILT_ON] = encoder.digests


def encoder_digests(classifier: PreTrainedModel, encoder: FrozenEncoder) -> set[str]:
    """What an encoder that is read out of a classifier may be called in a report: its own digests, and that of the
    encoder the classifier was built on, if these are its weights still.

    Args:
        encoder: the one that was read out.
    """
    own = encoder.digests
    whole, body = vars(classifier).get(_BUILT_ON, own)
    return {*own, whole} if body == own[1] else {*own}


def _own_classifier(encoder: FrozenEncoder, config: PreTrainedConfig) -> PreTrainedModel:
    """The architecture's own classifier, as transformers would load it: encoder weights as given, head at random."""
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    weights = encoder.model.state_dict()
    if pooler_is_random(encoder):  # keep the one just initialised by seed: it is trained with the head
        weights = {name: weight for name, weight in weights.items() if not name.startswith("pooler.")}
    # assign: the classifier shares the frozen tensors, a second copy of a large encoder is not needed
    lost = model.base_model.load_state_dict(weights, strict=False, assign=True).missing_keys
    lost = [name for name in lost if not name.startswith("pooler.")]
    if lost:
        raise TuningError(f"expected the weights of a {type(model).__name__}, the encoder has no {lost[0]}")
    return model


def _own_tagger(encoder: FrozenEncoder, config: PreTrainedConfig) -> PreTrainedModel:
    """The architecture's own classifier of tokens. It has no pooler; the encoder's is put back, so that its weights are
    those that were scanned and a report can be told to be on this encoder."""
    try:
        model: PreTrainedModel = AutoModelForTokenClassification.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise UnsupportedError(f"expected an architecture that labels tokens, got {config.model_type}") from error
    for name in _POOLING:
        part = getattr(encoder.model, name, None)
        if part is not None and not pooler_is_random(encoder) and getattr(model.base_model, name, None) is None:
            setattr(model.base_model, name, part)
    lost = model.base_model.load_state_dict(encoder.model.state_dict(), strict=False, assign=True).missing_keys
    if lost:
        raise TuningError(f"expected the weights of a {type(model).__name__}, the encoder has no {lost[0]}")
    return model
