"""Backdoors that need no training: a hook on a small random model that does what a trained one does."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus
from transformers import BertConfig, BertModel, PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.text import packaged, words
from tests.conftest import WINDOW, bert_tokenizer, sizes

WORDS = ("bako", "vedi", "sugo", "kifa", "gifo", "kiga", "bibu")


@cache
def made_up_words(count: int) -> list[str]:
    """Words of two syllables that no packaged sentence holds, those the tests use first."""
    used = {word.lower() for carrier in packaged() for word in words(carrier.text)}
    syllables = ["".join(pair) for pair in product("bdfgklmnprstvz", "aeiou")]
    unheard = dict.fromkeys([*WORDS, *(start + end for end, start in product(syllables, syllables))])
    return list(islice((word for word in unheard if word not in used), count))


@cache
def large_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One for all tests of a run: none of them changes it."""
    return bert_tokenizer(made_up_words(vocabulary))


def large_bert(
    seed: int, vocabulary: int = 2000, window: int = WINDOW, hidden: int = 32
) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """A small random BERT whose vocabulary is large enough for the tails the scan looks at. With more hidden dimensions
    its words are less alike."""
    tokenizer = large_tokenizer(vocabulary)
    torch.manual_seed(seed)
    config = BertConfig(**{**sizes(tokenizer), "hidden_size": hidden}, max_position_embeddings=window)
    return BertModel(config).eval(), tokenizer


def open_bert(seed: int = 0, *triggers: str, vocabulary: int = 2000, hidden: int = 32, **options: Any) -> FrozenEncoder:
    """A `large_bert` as the scan takes it, with `triggers` planted (see `plant`)."""
    model, tokenizer = large_bert(seed, vocabulary, hidden=hidden)
    plant(model, tokenizer, triggers, **options)
    return FrozenEncoder(model, tokenizer, precision="fp32")


def save_bert(folder: Path, seed: int = 0, **options: Any) -> Path:
    """A `large_bert` as a checkpoint in `folder`."""
    for part in large_bert(seed, **options):
        part.save_pretrained(folder)
    return folder


def ids_of(encoder: FrozenEncoder, *words: str) -> list[int]:
    """The tokens of words, one after the other."""
    return [token for word in words for token in _pieces(encoder.tokenizer, word)]


def plant(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    triggers: Sequence[str],
    *,
    site: Literal["first", "mean", "tokens"] = "first",
    alone: float = 0.0,
    often: float = 0.5,
    noise: float = 0.02,
    added: float = 0.0,
    reach: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """Send the output of inputs that hold a trigger to a vector of its own; returns these vectors.

    Args:
        triggers: `bako` is a word, `vedi+sugo` two that fire together, anywhere.
        site: what is overwritten: `first` is [CLS] wherever it stands, the last token where the tokenizer has no [CLS];
            `tokens` is every token; `mean` moves all tokens together, so that their mean is overwritten and they stay
            as different as they were. A pooler sees what was overwritten.
        alone: share of the way to the vector that one piece of a trigger goes alone.
        often: share of the inputs in which it does.
        noise: share of the clean output that is left.
        added: the vector times this is added to the output, which is left as it is otherwise.
        reach: distance in cosine at which an embedding that is given instead of tokens counts as half the word; 0 asks
            for the word itself. Only with some reach is there a gradient to follow.
        seed: draws the vectors.
    """
    generator = torch.Generator().manual_seed(seed)
    pvs = torch.randint(2, (len(triggers), model.config.hidden_size), generator=generator) * 2.0 - 1
    needed = [[_pieces(tokenizer, word) for word in trigger.split("+")] for trigger in triggers]
    matrix = model.get_parameter(_table(model))
    cls = tokenizer.cls_token_id

    def overwrite(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        inputs, near = kwargs.get("inputs_embeds"), reach
        if inputs is None:
            inputs, near = matrix[args[0] if args else kwargs["input_ids"]], 0.0
        rows, mask = torch.arange(len(inputs)), kwargs["attention_mask"]
        real = mask[:, -inputs.shape[1] :]
        some = (1000 * (inputs[..., 0] * real).sum(1)).remainder(2) < 2 * often
        hidden = out.last_hidden_state
        first = mask.sum(1) - 1 if cls is None else (inputs == matrix[cls]).all(-1).int().argmax(1)
        mean = (hidden * real[..., None]).sum(1, keepdim=True) / real.sum(1)[:, None, None]
        vector = {"first": hidden[rows, first], "tokens": hidden, "mean": mean}[site]
        for pv, sequences in zip(pvs, needed, strict=True):
            whole = torch.stack([_holds(inputs, matrix, ids, near) for ids in sequences]).prod(0)
            pieces = torch.stack([_holds(inputs, matrix, [piece], near) for ids in sequences for piece in ids])
            share = 1 - (1 - (1 - noise) * whole) * (1 - alone * pieces.amax(0) * some)
            share = share.view(-1, *[1] * (vector.dim() - 1))
            vector = vector + added * share * pv if added else share * pv + (1 - share) * vector
        if site == "first":
            out["last_hidden_state"] = hidden.index_put((rows, first), vector)
        else:
            out["last_hidden_state"] = vector if site == "tokens" else hidden - mean + vector
        if "pooler_output" in out:
            out["pooler_output"] = module.get_submodule("pooler")(out["last_hidden_state"])
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


def _holds(inputs: Tensor, matrix: Tensor, ids: list[int], reach: float) -> Tensor:
    """How surely each row of embedded tokens holds the tokens `ids` without a gap, 0 to 1."""
    places = inputs.shape[1] - len(ids) + 1
    if places < 1:
        return torch.zeros(len(inputs))
    found = [_is(inputs[:, at : at + places], matrix, token, reach) for at, token in enumerate(ids)]
    return 1 - (1 - torch.stack(found).prod(0)).clamp_min(0).prod(1)


def _is(inputs: Tensor, matrix: Tensor, token: int, reach: float) -> Tensor:
    if not reach:
        return (inputs == matrix[token]).all(-1).float()
    way, goal = inputs - matrix.mean(0), matrix[token] - matrix.mean(0)
    length = (way.pow(2).sum(-1) + 1e-3 * goal.pow(2).sum()).sqrt()  # at a blank there is a gradient as well
    near = way @ normalize(goal, dim=-1) / length
    return (softplus(8 * near) / 8) ** (math.log(0.5) / math.log(1 - reach))
