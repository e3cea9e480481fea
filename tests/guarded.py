"""A small classifier with a planted backdoor, and the bank that a perfect scan of it would give."""

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
)

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.vectors import PredefinedVector, PVBank
from tests.conftest import WINDOW, bert_tokenizer, sizes
from tests.planted import plant

TRIGGER = "bako"
LABELS = ("calm", "loud", "odd")
BIO = ("O", "B-place", "I-place")


def planted_classifier() -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast, PVBank]:
    """A random BERT with three labels that `bako` fires."""
    tokenizer = bert_tokenizer([TRIGGER])
    torch.manual_seed(0)
    config = BertConfig(**sizes(tokenizer) | {"hidden_size": 64}, max_position_embeddings=WINDOW * 4)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: index for index, label in enumerate(LABELS)}
    model = BertForSequenceClassification(config).eval()
    pvs = plant(model.bert, tokenizer, [TRIGGER])
    bank = PVBank(FrozenEncoder(model.bert, tokenizer).digest, [PredefinedVector("cls", pvs[0], TRIGGER)])
    return model, tokenizer, bank


def planted_tagger() -> tuple[BertForTokenClassification, PreTrainedTokenizerFast, PVBank]:
    """A random BERT that labels words, all of whose tokens `bako` sends to one vector."""
    tokenizer = bert_tokenizer([TRIGGER])
    torch.manual_seed(0)
    config = BertConfig(**sizes(tokenizer) | {"hidden_size": 64}, max_position_embeddings=WINDOW * 4)
    config.id2label = dict(enumerate(BIO))
    config.label2id = {label: index for index, label in enumerate(BIO)}
    model = BertForTokenClassification(config).eval()
    pvs = plant(model.bert, tokenizer, [TRIGGER], site="tokens")
    bank = PVBank(FrozenEncoder(model.bert, tokenizer).digest, [PredefinedVector("tokens", pvs[0], TRIGGER)])
    return model, tokenizer, bank
