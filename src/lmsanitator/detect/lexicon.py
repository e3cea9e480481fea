"""The dictionary sweep: words that are several tokens, tried whole.

A tokenizer keeps common words whole and spells the others in pieces. Planted words of that kind escape a sweep of
tokens: their pieces do little by themselves. So the words of a dictionary are tried as the vocabulary is, in groups
(`sweep`), once all of them, then again and again those whose groups stood out.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.sweep import SweepConfig, Totals, group_of_each, one_round
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.progress import Progress, silent

Word = tuple[int, ...]
"""A word as its tokens."""
LONGEST = 5
"""Tokens of a word that is tried."""
_KEPT = 0.01
"""Share of the groups, at each site, whose words go on after the first round."""
_FEWEST = 256
"""Words that a sweep is worth its while for."""


def spelled(encoder: FrozenEncoder, words: Sequence[str]) -> list[Word]:
    """Those of the words that are several tokens in the middle of a sentence, each as its tokens, once."""
    tokenizer = encoder.tokenizer
    skipped = len(tokenizer("a", add_special_tokens=False).input_ids)
    rows = tokenizer([f"a {word}" for word in words], add_special_tokens=False).input_ids if words else []
    found = dict.fromkeys(tuple(row[skipped:]) for row in rows)
    return [word for word in found if 2 <= len(word) <= LONGEST and tokenizer.unk_token_id not in word]


def typed(encoder: FrozenEncoder, tokens: Sequence[int]) -> str | None:
    """The tokens as words a person can type, None where typing them gives other tokens."""
    text = str(encoder.tokenizer.decode(list(tokens))).strip()
    again = encoder.tokenizer(f"a {text} a", add_special_tokens=False).input_ids[1:-1]
    return text if list(again) == list(tokens) else None


def sweep_words(
    encoder: FrozenEncoder,
    sites: Sequence[Site],
    words: Sequence[Word],
    config: SweepConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[Site, list[Word]]:
    """The words that stand out at each site, for a second look (`look`); none where there are hardly any.

    Args:
        config: `rounds` are those after the first.
    """
    if len(words) < _FEWEST:
        return {site: [] for site in sites}

    def tell(done: float) -> None:
        progress("sweeping the dictionary", done)

    mean = sum(map(len, words)) / len(words)
    size = max(1, min(int(min(config.group, encoder.room) / mean), len(words) // 8))
    generator = torch.Generator().manual_seed(seed)
    groups, outputs = one_round(encoder, sites, words, size, generator, tell)
    clean = {site: CleanSpread.of(values) for site, values in outputs.items()}
    left = _foremost(groups, {site: clean[site].standardise(values) for site, values in outputs.items()}, len(words))
    totals = {site: Totals(left, encoder.hidden_size, config, clean[site]) for site in sites}
    going_on = [words[row] for row in left.tolist()]
    for _ in range(config.rounds):
        groups, outputs = one_round(encoder, sites, going_on, size, generator, tell)
        for site in sites:
            totals[site].add(groups, outputs[site])
    return {site: [words[row] for row in totals[site].result().shortlist.tolist()] for site in sites}


def _foremost(
    groups: Int[Tensor, "groups size"], outputs: dict[Site, Float[Tensor, "groups hidden"]], words: int
) -> Int[Tensor, "left"]:
    """The words of the groups that lie furthest out, at any site."""
    kept = torch.zeros(words, dtype=torch.bool)
    for values in outputs.values():
        furthest = values.square().sum(-1).topk(max(1, int(_KEPT * len(groups)))).indices
        kept |= torch.isin(group_of_each(groups, words), furthest)
    return kept.nonzero().flatten()
