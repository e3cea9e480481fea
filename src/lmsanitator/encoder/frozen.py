"""The encoder under test: frozen, in eval mode, every site from one forward pass, every token counted."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.encoder.attention import unfused
from lmsanitator.encoder.loading import open_checkpoint
from lmsanitator.encoder.padding import pad
from lmsanitator.encoder.pairs import frame_pairs
from lmsanitator.encoder.precision import Precision, takes_bf16
from lmsanitator.encoder.sites import Site, one_vector, read_site
from lmsanitator.encoder.spelling import rows_of
from lmsanitator.encoder.workers import side_by_side
from lmsanitator.errors import UnsupportedError

BATCH_TOKENS = 2048
"""Tokens in a batch: enough to keep the cores busy, few enough for the activations to stay in the cache."""


@dataclass
class TokenMeter:
    """Tokens that went through the encoder, the unit in which cost is reported."""

    forward: int = 0
    backward: int = 0
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def add(self, forward: int, backward: int) -> None:
        """Count so many more, whichever thread they went through in."""
        with self._lock:
            self.forward += forward
            self.backward += backward


class FrozenEncoder:
    """A pretrained encoder whose weights cannot change.

    Args:
        model: a transformers model without head; it is set to eval mode and frozen.
        tokenizer: its fast tokenizer, padding on the right.
        source: what to call it in reports.
        untrained: names of weights that are random because the checkpoint lacks them.
        precision: of searches; `auto` takes bf16 on GPUs and on CPUs that were measured to multiply it much faster
            (`precision`), and fp32 elsewhere. Evidence is confirmed in fp32 whatever is chosen here.
        device: where to run; the model is moved there.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        source: str = "memory",
        untrained: Iterable[str] = (),
        precision: Precision = "auto",
        device: str = "cpu",
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenizer = tokenizer
        self.source = source
        self.device = torch.device(device)
        self.reduced = takes_bf16(precision, self.device)
        self.meter = TokenMeter()
        self._pooler_is_random = any(name.startswith("pooler.") for name in untrained)
        self.sites: tuple[Site, ...] = self._find_sites()

    @property
    def precision(self) -> Precision:
        """That of searches."""
        return "bf16" if self.reduced else "fp32"

    @classmethod
    def open(
        cls,
        source: str | Path,
        *,
        base: str | Path | None = None,
        precision: Precision = "auto",
        device: str = "cpu",
        allow_pickle: bool = False,
    ) -> Self:
        """Open a checkpoint safely (see `open_checkpoint`) and freeze it."""
        opened = open_checkpoint(source, base=base, allow_pickle=allow_pickle)
        return cls(
            opened.model,
            opened.tokenizer,
            source=opened.source,
            untrained=opened.untrained,
            precision=precision,
            device=device,
        )

    def _find_sites(self) -> tuple[Site, ...]:
        ids = self.tokenizer("a").input_ids
        sites: list[Site] = []
        if self.tokenizer.cls_token_id is not None and ids[0] == self.tokenizer.cls_token_id:
            sites.append("cls")
        if getattr(self.model, "pooler", None) is not None and not self._pooler_is_random:
            sites.append("pooler")
        if self.tokenizer.mask_token_id is not None:
            sites.append("mask")
        return (*sites, "mean", "last", "tokens")

    @property
    def architecture(self) -> str:
        return type(self.model).__name__

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def window(self) -> int:
        """The longest input in tokens that the position embeddings and the tokenizer allow; 512 where neither says."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        limits = (
            None if positions is None else positions - self._unused_positions,
            getattr(self.tokenizer, "model_max_length", None),
        )
        return min((int(limit) for limit in limits if limit and 0 < limit < 10**6), default=512)

    @property
    def room(self) -> int:
        """Tokens of a text that fit into the window beside the special ones and a mask token."""
        return self.window - sum(map(len, self.frame)) - 1

    @cached_property
    def _unused_positions(self) -> int:
        """Rows of the position table that no token gets: RoBERTa and its kin count from behind the padding index."""
        for name, module in self.model.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
                return 0 if module.padding_idx is None else module.padding_idx + 1
        return 0

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes and bytes of the checkpoint's weights: what reports and banks are bound to."""
        return self._digest("pooler." if self._pooler_is_random else None)

    @property
    def digests(self) -> tuple[str, str]:
        """`digest` with and without the pooler: a classifier may have trained one that its encoder came without."""
        return self._digest(None), self._digest("pooler.")

    def _digest(self, skipped: str | None) -> str:
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.state_dict().items()):
            if skipped is None or not name.startswith(skipped):
                digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
                digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def require(self, sites: Sequence[Site]) -> None:
        """Raise UnsupportedError unless this encoder has all of `sites`."""
        for site in sites:
            if site not in self.sites:
                raise UnsupportedError(f"expected a site of {self.architecture}: {', '.join(self.sites)}; got {site}")

    def encode(self, texts: Sequence[str]) -> BatchEncoding:
        """Tokenize to padded tensors, cut to the window."""
        batch: BatchEncoding = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.window, return_tensors="pt"
        )
        return batch.to(self.device)

    def embed(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """The input embeddings of token ids, as the encoder itself would look them up. They are as wide as the hidden
        state in most architectures, narrower in some (ALBERT, ELECTRA)."""
        embedded: Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        return embedded

    @cached_property
    def embedding_matrix(self) -> Float[Tensor, "vocabulary width"]:
        """All rows the tokenizer can reach (matrices are often padded beyond them), as `embed` gives them. It is not
        to be written to."""
        table = self.model.get_input_embeddings()
        if type(table) is torch.nn.Embedding and table.max_norm is None:  # what it looks up are its weights as they are
            return table.weight.detach()[: rows_of(self.tokenizer)]
        rows = torch.arange(rows_of(self.tokenizer))
        return self.embed(rows.unsqueeze(0))[0]

    def outputs(
        self,
        inputs: Int[Tensor, "batch tokens"] | Float[Tensor, "batch tokens width"],
        mask: Int[Tensor, "batch tokens"],
        sites: Sequence[Site],
        *,
        mask_positions: Int[Tensor, "batch"] | None = None,
        types: Int[Tensor, "batch tokens"] | None = None,
        exact: bool = False,
    ) -> dict[Site, Tensor]:
        """All requested sites from one forward pass, in fp32.

        Args:
            inputs: token ids, or embeddings through which gradients may flow.
            mask: 1 for real tokens, 0 for padding on the right.
            mask_positions: where the mask token is, for the mask site.
            types: which text of a pair each token is of.
            exact: compute in fp32 whatever the search precision is; evidence is always confirmed so.

        Returns:
            site -> (batch, hidden), or (batch, tokens, hidden) for `tokens`.
        """
        names = {"inputs_embeds": inputs} if inputs.is_floating_point() else {"input_ids": inputs}
        names |= {} if types is None else {"token_type_ids": types}
        tracked = inputs.requires_grad and torch.is_grad_enabled()
        tokens = int(mask.sum())
        self.meter.add(tokens, tokens if tracked else 0)
        reduced = self.reduced and not exact
        with (
            torch.set_grad_enabled(tracked),
            # the fused kernel's backward pass for CPUs takes three times as long in bf16
            unfused() if tracked and reduced and self.device.type == "cpu" else nullcontext(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=reduced),
        ):
            out = self.model(
                **{name: tensor.to(self.device) for name, tensor in names.items()}, attention_mask=mask.to(self.device)
            )
        hidden = out.last_hidden_state.float()
        pooled = out.get("pooler_output")
        pooled = None if pooled is None else pooled.float()
        return {site: read_site(site, hidden, pooled, mask, mask_positions) for site in sites}

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens the tokenizer puts before and after a single text."""
        plain = self.tokenizer("a", add_special_tokens=False).input_ids
        framed = self.tokenizer("a").input_ids
        for start in range(len(framed)):
            if framed[start : start + len(plain)] == plain:
                return framed[:start], framed[start + len(plain) :]
        raise UnsupportedError("expected a tokenizer that puts special tokens around a text, this one changes the text")

    def outputs_of_ids(
        self, bodies: Sequence[Sequence[int]], sites: Sequence[Site], *, exact: bool = False
    ) -> dict[Site, Float[Tensor, "bodies hidden"]]:
        """One vector a site of many token sequences, given without special tokens; a mask token is added at the end
        where the mask site is asked for. `tokens` gives the mean over them, which is on a PV when all of them are.
        Sequences of like length share a batch, so that little is spent on padding."""
        before, after = self.frame
        if "mask" in sites:
            after = [int(self.tokenizer.mask_token_id or 0), *after]  # require() sees to it that there is one
        return self._outputs_of_rows([[*before, *body, *after] for body in bodies], None, sites, len(after), exact)

    def _outputs_of_rows(
        self, rows: list[list[int]], types: list[list[int]] | None, sites: Sequence[Site], behind: int, exact: bool
    ) -> dict[Site, Float[Tensor, "rows hidden"]]:
        """`outputs_of_ids` for whole rows, in which the mask token, if any, is `behind` tokens before the end."""
        read: list[Site] = list(dict.fromkeys(map(one_vector, sites)))
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))

        def outputs(batch: Sequence[int]) -> dict[Site, Tensor]:
            ids, mask = pad([rows[index] for index in batch], int(self.tokenizer.pad_token_id))
            kinds = None if types is None else pad([types[index] for index in batch], 0)[0]
            out = self.outputs(ids, mask, read, mask_positions=mask.sum(1) - behind, types=kinds, exact=exact)
            return {site: out[one_vector(site)].cpu() for site in sites}

        parts = side_by_side(outputs, _batches(order, [len(rows[index]) for index in order]), self.device)
        back = torch.tensor(sorted(range(len(order)), key=order.__getitem__), dtype=torch.long)
        nothing = torch.empty(0, self.hidden_size)
        return {site: torch.cat([nothing, *(part[site] for part in parts)])[back] for site in sites}

    def outputs_of_texts(
        self, texts: Sequence[str | tuple[str, str]], sites: Sequence[Site], *, exact: bool = True
    ) -> dict[Site, Float[Tensor, "texts hidden"]]:
        """One vector a site of many texts, or of many pairs of texts (as `outputs_of_ids`), cut to the window; of a
        pair the longer text is cut first."""
        if texts and not isinstance(texts[0], str):
            mask_id = int(self.tokenizer.mask_token_id or 0) if "mask" in sites else None
            rows, types, behind = frame_pairs(self.tokenizer, texts, self.window, len(self.frame[1]), mask_id)
            typed = getattr(self.model.config, "type_vocab_size", 0) > 1
            return self._outputs_of_rows(rows, types if typed else None, sites, behind, exact)
        bodies = self.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=self.room).input_ids
        return self.outputs_of_ids(bodies, sites, exact=exact)


def _batches(rows: Sequence[int], lengths: Sequence[int]) -> list[Sequence[int]]:
    """Rows in batches of as many as fit into the budget, padding included.

    Args:
        lengths: of each row, in ascending order.
    """
    batches: list[Sequence[int]] = []
    start = 0
    for end, length in enumerate(lengths):
        if length * (end + 1 - start) > BATCH_TOKENS and end > start:
            batches.append(rows[start:end])
            start = end
    return [*batches, rows[start:]] if rows else []
