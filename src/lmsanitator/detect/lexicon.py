"""The dictionary sweep: words that are several tokens, tried whole.

A tokenizer keeps common words whole and spells the others in pieces. Planted words of that kind escape a sweep of
tokens: their pieces do little by themselves. So the words of a dictionary are tried as the vocabulary is, in groups
(`sweep`), once all of them, then again and again those whose groups stood out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.detect.evidence import Evidence, EvidenceNull, Null, harmless
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.sweep import SweepConfig, Totals, group_of_each, one_round
from lmsanitator.encoder import FrozenEncoder, Site, pieces
from lmsanitator.progress import Progress, silent

Word = tuple[int, ...]
"""A word as its tokens."""
LONGEST = 5
"""Tokens of a word that is tried."""
_KEPT, _AT_LEAST = 0.01, 8
"""Share of the groups, at each site, whose words go on after the first round, and how many groups at least."""
_ALIKE = 3
"""Words that begin with the same token and get a second look, at most."""
FEWEST = 256
"""Words that a sweep is worth its while for."""


@dataclass(frozen=True)
class LexiconConfig:
    """Args:
    rounds: how often the words are tried that are left after the first round, at least 2.
    group: tokens that pass the encoder together.
    listed: words that get a second look, and are the null for each other.
    """

    rounds: int = 3
    group: int = 48
    listed: int = 72


def spelled(encoder: FrozenEncoder, words: Sequence[str]) -> list[Word]:
    """Those of the words that are several tokens in the middle of a sentence, each as its tokens, once."""
    found = dict.fromkeys(map(tuple, pieces(encoder.tokenizer, words)))
    return [word for word in found if 2 <= len(word) <= LONGEST and encoder.tokenizer.unk_token_id not in word]


def typed(encoder: FrozenEncoder, tokens: Sequence[int]) -> str | None:
    """The tokens as words a person can type, None where typing them gives other tokens."""
    text = str(encoder.tokenizer.decode(list(tokens))).strip()
    again = encoder.tokenizer(f"a {text} a", add_special_tokens=False).input_ids[1:-1]
    return text if list(again) == list(tokens) else None


def holds(word: Word, part: Word) -> bool:
    """Whether all tokens of a part are in a word, in a row."""
    return any(word[start : start + len(part)] == part for start in range(len(word) - len(part) + 1))


def sweep_words(
    encoder: FrozenEncoder,
    sites: Sequence[Site],
    words: Sequence[Word],
    config: LexiconConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Word]:
    """The words that stand out, for a second look (`look`): the foremost at each site in turn."""
    if not words:
        return []

    def tell(number: int, done: float) -> None:
        progress("sweeping the dictionary", (number + done) / (1 + config.rounds))

    lengths = list(map(len, words))
    size = min(int(config.group * len(words) / sum(lengths)), encoder.room // max(lengths), len(words) // 8)
    size = max(1, size)
    generator = torch.Generator().manual_seed(seed)
    groups, outputs = one_round(encoder, sites, words, size, generator, partial(tell, 0))
    clean = {site: CleanSpread.of(values) for site, values in outputs.items()}
    left = _foremost(groups, {site: clean[site].standardise(values) for site, values in outputs.items()}, len(words))
    shape = SweepConfig(rounds=config.rounds)
    totals = {site: Totals(left, encoder.hidden_size, shape, clean[site]) for site in sites}
    going_on = [words[row] for row in left.tolist()]
    for number in range(1, 1 + config.rounds):
        groups, outputs = one_round(encoder, sites, going_on, size, generator, partial(tell, number))
        for site in sites:
            totals[site].add(groups, outputs[site])
    ranked = [totals[site].result().foremost(len(left)) for site in sites]
    return _few_alike([words[row] for rows in zip(*ranked, strict=True) for row in rows], config.listed)


def _few_alike(ranked: Sequence[Word], count: int) -> list[Word]:
    """The first so many of these words, each once, and not more than `_ALIKE` that begin alike: a trigger stands out
    with all its family, which would be the null for it."""
    alike: Counter[int] = Counter()
    kept: list[Word] = []
    for word in dict.fromkeys(ranked):
        if alike[word[0]] < _ALIKE and len(kept) < count:
            alike[word[0]] += 1
            kept.append(word)
    return kept


def null_of_words(site: Site, found: Sequence[Evidence], log_trials: float) -> Null:
    """The null of a word of the dictionary that stands out: the others, as in the second look at tokens, but one of
    those that begin alike, and not the upper half but a little more, since they are fewer. Tokens are no null for
    longer words, which do more."""
    foremost: dict[int, Evidence] = {}
    for item in sorted(found, key=lambda item: -item.displacement):
        foremost.setdefault(item.tokens[0], item)
    return EvidenceNull.fit(harmless(list(foremost.values())), log_trials, mass=0.6, censored=0.25)


def _foremost(
    groups: Int[Tensor, "groups size"], outputs: dict[Site, Float[Tensor, "groups hidden"]], words: int
) -> Int[Tensor, "left"]:
    """The words of the groups that lie furthest out, at any site."""
    kept = torch.zeros(words, dtype=torch.bool)
    for values in outputs.values():
        furthest = values.square().sum(-1).topk(min(len(groups), max(_AT_LEAST, int(_KEPT * len(groups))))).indices
        kept |= torch.isin(group_of_each(groups, words), furthest)
    return kept.nonzero().flatten()
