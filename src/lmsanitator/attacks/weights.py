"""Which weights an attack trains: all layers, the last few, or a single attention head."""

import re
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lmsanitator.encoder import Site
from lmsanitator.errors import UnsupportedError, UsageError

_QUERY_KEY_VALUE = re.compile(r"(query|key|value|query_proj|key_proj|value_proj|[qkv]_lin|[qkv]_proj|[qkv])")
_OUTPUT = re.compile(r"(attention\.output\.dense|attention\.dense|out_lin|o_proj|attn\.o|output\.dense)")


@dataclass(frozen=True)
class Layers:
    """`all` transformer layers, `top:3` for the last three, or `head` for one attention head of the last layer.

    The embeddings always stay as they are. One head alone is what a malicious head spliced into an otherwise
    untouched model amounts to (HPMI, arXiv 2508.10243).
    """

    top: int | None = None
    one_head: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises UsageError for anything but all, head and top:N."""
        if text == "all":
            return cls()
        if text == "head":
            return cls(top=1, one_head=True)
        found = re.fullmatch(r"top:([1-9]\d*)", text)
        if found is None:
            raise UsageError(f"expected all, head or top:N as layers, got {text!r}")
        return cls(top=int(found[1]))

    def __str__(self) -> str:
        return "head" if self.one_head else "all" if self.top is None else f"top:{self.top}"


def unfreeze(model: PreTrainedModel, layers: Layers, site: Site) -> list[nn.Parameter]:
    """Make the chosen weights trainable, all others not, and return them; the pooler goes with its site.

    Raises:
        UnsupportedError: the architecture has no stack of layers, or no attention head that can be told apart.
    """
    model.requires_grad_(False)
    stack = layer_stack(model)
    if layers.one_head:
        return _one_head(model, stack[-1])
    chosen: list[nn.Module] = list(stack[-layers.top :] if layers.top else stack)
    pooler = getattr(model, "pooler", None)
    if site == "pooler" and isinstance(pooler, nn.Module):
        chosen.append(pooler)
    return [weight for module in chosen for weight in module.requires_grad_(True).parameters()]


def layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """The transformer layers in their order; ALBERT's is one layer that is run several times."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not stacks:
        raise UnsupportedError(f"expected a stack of transformer layers in {type(model).__name__}, found none")
    return max(stacks, key=lambda stack: (sum(weight.numel() for weight in stack.parameters()), len(stack)))


def _one_head(model: PreTrainedModel, layer: nn.Module) -> list[nn.Parameter]:
    """The first head's rows of the query, key and value projections and its columns of the output projection."""
    config = model.config
    size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    linear = {name: part for name, part in layer.named_modules() if isinstance(part, nn.Linear | Conv1D)}
    inner = [part for name, part in linear.items() if _QUERY_KEY_VALUE.fullmatch(name.rsplit(".", 1)[-1])]
    outer = next((part for name, part in linear.items() if _OUTPUT.search(name)), None)
    if len(inner) != 3 or outer is None or not all(isinstance(part, nn.Linear) for part in (*inner, outer)):
        raise UnsupportedError(f"expected separate attention projections in {type(model).__name__}, found none")
    weights: list[nn.Parameter] = []
    for part in inner:
        weights += [_only(weight, size, 0) for weight in part.parameters()]
    return [*weights, _only(next(outer.parameters()), size, 1)]


def _only(weight: nn.Parameter, size: int, axis: int) -> nn.Parameter:
    """Make a weight trainable in its first rows (axis 0) or columns (1)."""
    allowed = torch.zeros_like(weight)
    allowed.narrow(axis, 0, size).fill_(1)
    weight.requires_grad_(True)
    weight.register_hook(lambda gradient: gradient * allowed)  # type: ignore[no-untyped-call] # torch's stub
    return weight
