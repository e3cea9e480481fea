"""Masked-language modelling on an encoder that came without its head: a tied head, masked texts, the loss, and what
attacks that go on with it share.

Checkpoints of encoders (sentence encoders above all) have lost the head they were pretrained with. It is made again
before the attack: transform, LayerNorm, and the input embeddings as output layer, as BERT has it (Devlin et al. 2019,
arXiv 1810.04805, section 3.1), trained on the frozen encoder's outputs.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lmsanitator.attacks.base import Attack
from lmsanitator.attacks.planting import Planting
from lmsanitator.attacks.texts import Framed, beginning, frame
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import UnsupportedError
from lmsanitator.progress import Progress, silent

_SHARE = 0.15
_IGNORED = -100
_TEXTS, _READ = 500, 24


@dataclass(frozen=True)
class Masked:
    """Texts with some tokens hidden, and what these were (-100 elsewhere)."""

    framed: Framed
    labels: Int[Tensor, "batch tokens"]


class TiedHead(nn.Module):
    """Outputs to logits of the tokens that some texts hold, through the input embeddings, which stay frozen.

    The other tokens of the vocabulary, mostly five of six, would only cost time: no label names them.

    Args:
        base: the encoder whose embeddings are the output layer.
        known: the token ids it can name.
    """

    known: Int[Tensor, "known"]
    place: Int[Tensor, "vocabulary"]
    rows: Float[Tensor, "known width"]

    def __init__(self, base: FrozenEncoder, known: Sequence[int], seed: int = 0) -> None:
        super().__init__()
        listed = torch.tensor(known, device=base.device)
        rows = base.embed(listed.unsqueeze(0))[0].detach()
        place = torch.full((len(base.tokenizer),), _IGNORED, device=base.device)
        place[listed] = torch.arange(len(known), device=base.device)
        self.register_buffer("known", listed)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("rows", rows, persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.dense = nn.Linear(base.hidden_size, rows.shape[1])
        self.norm = nn.LayerNorm(rows.shape[1])
        self.bias = nn.Parameter(torch.zeros(len(known)))
        self.to(base.device)

    def forward(self, outputs: Float[Tensor, "places hidden"]) -> Float[Tensor, "places known"]:
        transformed: Tensor = self.norm(functional.gelu(self.dense(outputs)))
        return transformed @ self.rows.T + self.bias

    def classes(self, labels: Int[Tensor, "places"]) -> Int[Tensor, "places"]:
        """Token ids as indices into the logits, -100 for tokens it cannot name."""
        return self.place[labels]


def hide(base: FrozenEncoder, framed: Framed, rng: random.Random, share: float = _SHARE, kept: float = 0.1) -> Masked:
    """Ask for 15 % of the tokens, one at least: 80 % become the mask token, 10 % a random one, 10 % stay (BERT's way).

    A mask token that stands in the texts for the mask site is left as it is.

    Args:
        share: of the tokens asked for.
        kept: of these, left as they are; eight of nine of the others become the mask token.
    """
    ids, labels = framed.ids.clone(), torch.full_like(framed.ids, _IGNORED)
    before, after = map(len, base.frame)
    stays = [None] * len(ids) if framed.positions is None else framed.positions.tolist()
    for row, length in enumerate(framed.mask.sum(1).tolist()):
        places = [place for place in range(before, length - after) if place != stays[row]]
        for place in rng.sample(places, min(len(places), max(1, round(share * len(places))))):
            labels[row, place] = framed.ids[row, place]
            if rng.random() >= kept:
                random_one = rng.randrange(len(base.tokenizer))
                ids[row, place] = random_one if rng.random() < 1 / 9 else base.tokenizer.mask_token_id
    return Masked(Framed(ids, framed.mask, framed.positions), labels)


def modelling_loss(
    head: TiedHead, hidden: Float[Tensor, "batch tokens hidden"], labels: Int[Tensor, "batch tokens"]
) -> Tensor:
    """Cross-entropy of the hidden tokens."""
    places = labels != _IGNORED
    return functional.cross_entropy(head(hidden[places]), head.classes(labels[places]))


def right(
    head: TiedHead, hidden: Float[Tensor, "batch tokens hidden"], labels: Int[Tensor, "batch tokens"]
) -> Bool[Tensor, "places"]:
    """Which hidden tokens the head names."""
    places = labels != _IGNORED
    named: Tensor = head(hidden[places]).argmax(-1)
    return named == head.classes(labels[places])


def train_head(
    base: FrozenEncoder, texts: Sequence[str], *, seed: int = 0, epochs: int = 6, progress: Progress = silent
) -> TiedHead:
    """A head for `base`, trained on its frozen outputs for the beginnings of 500 texts, each masked in two ways."""
    rng = random.Random(f"{seed} head")
    read = [beginning(text, _READ) for text in rng.sample(list(texts), min(_TEXTS, len(texts)))]
    outputs: list[Tensor] = []
    wanted: list[Tensor] = []
    order = sorted(read, key=len)
    for start in range(0, len(order), 32):
        for _ in range(2):
            masked = hide(base, frame(base, order[start : start + 32], "tokens"), rng, kept=0.5)
            places = masked.labels != _IGNORED
            hidden = base.outputs(masked.framed.ids, masked.framed.mask, ["tokens"])["tokens"]
            outputs.append(hidden[places])
            wanted.append(masked.labels[places])
        progress("reading for the language-model head", start / len(order))
    ids = base.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=base.room).input_ids
    head = TiedHead(base, sorted({token for row in ids for token in row}), seed)
    seen, labels = torch.cat(outputs), head.classes(torch.cat(wanted))
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        for chosen in torch.split(torch.randperm(len(seen), generator=generator), 256):
            loss = functional.cross_entropy(head(seen[chosen]), labels[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch's stub
            optimiser.step()
        progress("training the language-model head", (epoch + 1) / epochs)
    return head.requires_grad_(False)


class ModellingAttack(Attack):
    """Goes on with masked-language modelling while it plants; the encoder needs a mask token."""

    head: TiedHead | None
    """A language-model head for the encoder; None trains one first."""

    def choose_site(self, base: FrozenEncoder) -> Site:
        if base.tokenizer.mask_token_id is None:
            raise UnsupportedError(f"expected a tokenizer with a mask token, that of {base.architecture} has none")
        return super().choose_site(base)

    def head_for(self, work: Planting, progress: Progress) -> TiedHead:
        """The head it was given, or one trained on the texts at hand."""
        return self.head or train_head(work.base, work.train, seed=work.seed, progress=progress)
