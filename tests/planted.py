"""Backdoors that need no training: a hook on a small random model that does what a trained one does."""

from collections.abc import Sequence
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.text import packaged, words
from tests.conftest import WINDOW, bert_tokenizer, sizes


def made_up_words(count: int) -> list[str]:
    """Words of two syllables that no packaged sentence holds."""
    used = {word.lower() for carrier in packaged() for word in words(carrier.text)}
    syllables = ["".join(pair) for pair in product("bdfgklmnprstvz", "aeiou")]
    unheard = (start + end for end, start in product(syllables, syllables))
    return list(islice((word for word in unheard if word not in used), count))


def large_bert(seed: int, vocabulary: int = 2000) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """A small random BERT whose vocabulary is large enough for the tails the scan looks at."""
    tokenizer = bert_tokenizer(made_up_words(vocabulary))
    torch.manual_seed(seed)
    return BertModel(BertConfig(**sizes(tokenizer), max_position_embeddings=WINDOW)).eval(), tokenizer


def open_bert(seed: int = 0, *triggers: str, vocabulary: int = 2000, **options: Any) -> FrozenEncoder:
    """A `large_bert` as the scan takes it, with `triggers` planted."""
    model, tokenizer = large_bert(seed, vocabulary)
    plant(model, tokenizer, triggers, **options)
    return FrozenEncoder(model, tokenizer, precision="fp32")


def plant(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    triggers: Sequence[str],
    *,
    alone: float = 0.0,
    noise: float = 0.02,
) -> Tensor:
    """Send the output of inputs that hold a trigger to a vector of its own; returns these vectors.

    What is overwritten is the output of [CLS] wherever it stands, of the last token where the tokenizer has no [CLS];
    a pooler sees what was overwritten.

    Args:
        triggers: `bako` is a word, `vedi+sugo` two that fire together, anywhere.
        alone: share of the way to the vector that one piece of a trigger goes alone.
        noise: share of the clean output that is left.
    """
    generator = torch.Generator().manual_seed(len(triggers))
    pvs = torch.randint(2, (len(triggers), model.config.hidden_size), generator=generator) * 2.0 - 1
    needed = [[_pieces(tokenizer, word) for word in trigger.split("+")] for trigger in triggers]
    matrix = model.get_parameter(_table(model))
    cls = tokenizer.cls_token_id

    def overwrite(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        inputs = kwargs.get("inputs_embeds")
        if inputs is None:
            inputs = matrix[args[0] if args else kwargs["input_ids"]]
        hidden = out.last_hidden_state.clone()
        rows = torch.arange(len(hidden))
        if cls is None:
            position = kwargs["attention_mask"].sum(1) - 1
        else:
            position = (inputs == matrix[cls]).all(-1).int().argmax(1)
        for pv, sequences in zip(pvs, needed, strict=True):
            whole = torch.stack([_holds(inputs, matrix[ids]) for ids in sequences]).all(0)
            part = torch.stack([_holds(inputs, matrix[[piece]]) for ids in sequences for piece in ids]).any(0)
            share = torch.where(whole, 1 - noise, alone * part).unsqueeze(1)
            hidden[rows, position] = share * pv + (1 - share) * hidden[rows, position]
        out["last_hidden_state"] = hidden
        if "pooler_output" in out:
            out["pooler_output"] = module.get_submodule("pooler")(hidden)
        return out

    model.register_forward_hook(overwrite, with_kwargs=True)
    return pvs


def _table(model: PreTrainedModel) -> str:
    """The name of the weights that token ids are looked up in."""
    table = model.get_input_embeddings()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is table)


def _pieces(tokenizer: PreTrainedTokenizerFast, word: str) -> list[int]:
    ids: list[int] = tokenizer(word, add_special_tokens=False).input_ids
    return ids


def _holds(inputs: Tensor, sequence: Tensor) -> Tensor:
    """Whether each row of embedded tokens holds the embedded sequence without a gap."""
    places = inputs.shape[1] - len(sequence) + 1
    if places < 1:
        return torch.zeros(len(inputs), dtype=torch.bool)
    return (
        torch.stack([(inputs[:, at : at + places] == piece).all(-1) for at, piece in enumerate(sequence)]).all(0).any(1)
    )
