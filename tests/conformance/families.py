"""One small random model of each family of architectures, with the tokenizer its family has."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ErnieConfig,
    ErnieModel,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    XLNetConfig,
    XLNetModel,
)

from lmsanitator.encoder import FrozenEncoder
from tests.conformance.tokenizers import (
    albert_tokenizer,
    deberta_tokenizer,
    llama_tokenizer,
    modernbert_tokenizer,
    qwen_tokenizer,
    xlnet_tokenizer,
)
from tests.conftest import WINDOW, bert_tokenizer, make_bert, make_gpt2, make_mpnet, make_roberta, sizes

Made = tuple[PreTrainedModel, PreTrainedTokenizerFast]


def _sizes(tokenizer: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    return sizes(tokenizer) | {"max_position_embeddings": WINDOW} | more


def _distilbert() -> Made:
    tokenizer = bert_tokenizer()
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=WINDOW
    )
    return DistilBertModel(config), tokenizer


def _albert() -> Made:
    tokenizer = albert_tokenizer()
    return AlbertModel(AlbertConfig(**_sizes(tokenizer, embedding_size=16))), tokenizer


def _electra() -> Made:
    tokenizer = bert_tokenizer()
    return ElectraModel(ElectraConfig(**_sizes(tokenizer, embedding_size=16))), tokenizer


def _deberta() -> Made:
    """As version 3 is: no position table, buckets of relative positions."""
    tokenizer = deberta_tokenizer()
    relative = {
        "relative_attention": True,
        "position_buckets": 16,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
    }
    return DebertaV2Model(DebertaV2Config(**_sizes(tokenizer, **relative))), tokenizer


def _xlnet() -> Made:
    tokenizer = xlnet_tokenizer()
    config = XLNetConfig(
        vocab_size=len(tokenizer), d_model=32, n_layer=2, n_head=4, d_inner=64, pad_token_id=tokenizer.pad_token_id
    )
    return XLNetModel(config), tokenizer


def _ernie() -> Made:
    """As versions 2 and 3 are: with an embedding of the task."""
    tokenizer = bert_tokenizer()
    return ErnieModel(ErnieConfig(**_sizes(tokenizer, use_task_id=True))), tokenizer


def _modernbert() -> Made:
    """Four layers, so that the first and the last see all and those between their neighbours only."""
    tokenizer = modernbert_tokenizer()
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    ends = {"bos_token_id": cls, "cls_token_id": cls, "eos_token_id": sep, "sep_token_id": sep}
    config = ModernBertConfig(**_sizes(tokenizer, num_hidden_layers=4, local_attention=16, **ends))
    return ModernBertModel(config), tokenizer


def _llama() -> Made:
    tokenizer = llama_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=64,
        max_position_embeddings=WINDOW,
    )
    return LlamaModel(config), tokenizer


def _qwen() -> Made:
    """Two query heads share a key and a value."""
    tokenizer = qwen_tokenizer()
    return Qwen2Model(Qwen2Config(**_sizes(tokenizer, num_key_value_heads=2))), tokenizer


def _seeded(seed: int, make: Callable[[], Made]) -> Made:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, tokenizer = make()
    return model.eval(), tokenizer


FAMILIES: Mapping[str, Callable[[], Made]] = {
    name: partial(_seeded, seed, make)
    for seed, (name, make) in enumerate(
        {
            "BERT": make_bert,
            "RoBERTa": make_roberta,
            "DistilBERT": _distilbert,
            "ALBERT": _albert,
            "ELECTRA": _electra,
            "DeBERTa-v2": _deberta,
            "MPNet": make_mpnet,
            "XLNet": _xlnet,
            "ERNIE": _ernie,
            "ModernBERT": _modernbert,
            "GPT-2": make_gpt2,
            "Llama": _llama,
            "Qwen2": _qwen,
        }.items()
    )
}
"""The family's usual name -> what makes its model and its tokenizer, the same at every call."""


def open_family(name: str, folder: Path) -> FrozenEncoder:
    """Save the family's checkpoint into `folder` and open it as any other is opened."""
    for part in FAMILIES[name]():
        part.save_pretrained(folder)
    return FrozenEncoder.open(folder, precision="fp32")
