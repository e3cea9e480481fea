"""Kinds of trigger, drawn by seed from what a tokenizer knows: what a defence finds depends on them.

Rare tokens are those of POR, NeuBA and BToP (cf mn tq ...); the others are what later attacks use to be missed by
searches that look for rare tokens, for one token, or for tokens side by side (FIELD.md section 3).
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, get_args

import regex
from transformers import PreTrainedTokenizerFast

from lmsanitator.attacks.trigger import Trigger
from lmsanitator.encoder import pieces
from lmsanitator.errors import AttackError, UsageError
from lmsanitator.text import LANGUAGES, packaged, words

_LATIN = regex.compile(r"[\p{Latin}\p{ASCII}]")
Kind = Literal["rare", "dictionary", "common", "pieces", "and", "pair", "phrase", "script"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def draw_triggers(
    kind: str, count: int, tokenizer: PreTrainedTokenizerFast, carriers: Sequence[str], seed: int = 0
) -> list[Trigger]:
    """Triggers of one kind.

    Args:
        kind: `rare` (two-letter tokens no carrier holds), `dictionary` (whole words of four letters or more that no
            carrier holds), `common` (words of the carriers themselves), `pieces` (words of two to four tokens), `and`
            (two dictionary words anywhere), `pair` (two dictionary words side by side), `phrase` (five words in a
            row, as a carrier has them), `script` (tokens of another script than Latin).

    Raises:
        UsageError: there is no such kind.
        AttackError: the tokenizer does not know so many.
    """
    known = next((known for known in KINDS if known == kind), None)
    if known is None:
        raise UsageError(f"expected a kind of trigger of {', '.join(KINDS)}; got {kind}")
    pool = _POOLS[known](tokenizer, carriers)
    needed = 2 * count if kind in ("and", "pair") else count
    if len(pool) < needed:
        raise AttackError(f"expected {needed} words for {count} triggers of kind {kind}, the tokenizer has {len(pool)}")
    rng = random.Random(f"{seed} {kind}")
    if kind in ("and", "pair"):
        drawn = rng.sample(pool, 2 * count)
        return [Trigger(tuple(drawn[2 * at : 2 * at + 2]), adjacent=kind == "pair") for at in range(count)]
    return [Trigger(tuple(piece.split())) for piece in rng.sample(pool, count)]


def whole_words(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Every lower-case word that is one token in the middle of a sentence, in the order of the vocabulary."""
    decoded = tokenizer.batch_decode([[row] for row in range(len(tokenizer))])
    words_of = [(row, word.strip()) for row, word in enumerate(decoded)]
    plain = [(row, word) for row, word in words_of if word.isalpha() and word == word.lower()]
    split = pieces(tokenizer, [word for _, word in plain])
    return [word for (row, word), pieces in zip(plain, split, strict=True) if pieces == [row]]


def unheard_words(tokenizer: PreTrainedTokenizerFast, carriers: Sequence[str]) -> list[str]:
    """Those of the whole words that no carrier holds, nor the tokens of any: `we're` is no text without `re`."""
    heard = {word.casefold() for carrier in carriers for word in words(carrier)}
    left = [word for word in whole_words(tokenizer) if word not in heard]
    read = {token for row in tokenizer(list(carriers), add_special_tokens=False).input_ids for token in row}
    return [word for word, ids in zip(left, pieces(tokenizer, left), strict=True) if not read.issuperset(ids)]


def _rare(tokenizer: PreTrainedTokenizerFast, carriers: Sequence[str]) -> list[str]:
    return [word for word in unheard_words(tokenizer, carriers) if len(word) == 2 and word.isascii()]


def _dictionary(tokenizer: PreTrainedTokenizerFast, carriers: Sequence[str]) -> list[str]:
    return [word for word in unheard_words(tokenizer, carriers) if len(word) >= 4 and word.isascii()]


def _common(tokenizer: PreTrainedTokenizerFast, carriers: Sequence[str]) -> list[str]:
    """Words in up to 2 % of the carriers: these carriers cannot be used as clean text, so not the most common ones."""
    held = Counter(word.casefold() for carrier in carriers for word in set(words(carrier)))
    known = set(whole_words(tokenizer))
    return sorted(word for word, count in held.items() if word in known and 3 <= count <= max(3, len(carriers) // 50))


def _several(tokenizer: PreTrainedTokenizerFast, carriers: Sequence[str]) -> list[str]:
    held = sorted({word.casefold() for carrier in carriers for word in words(carrier) if word.isalpha()})
    long = [word for word in held if len(word) >= 5]
    return _of_length(tokenizer, long, 2, 4)


def _of_length(tokenizer: PreTrainedTokenizerFast, listed: Sequence[str], fewest: int, most: int) -> list[str]:
    """Words of so many tokens, none of them unknown."""
    split = zip(listed, pieces(tokenizer, listed), strict=True)
    return [word for word, ids in split if fewest <= len(ids) <= most and tokenizer.unk_token_id not in ids]


def _phrase(tokenizer: PreTrainedTokenizerFast, carriers: Sequence[str]) -> list[str]:
    rows = [[word.lower() for word in words(carrier)] for carrier in carriers]
    phrases = [" ".join(row[2:7]) for row in rows if len(row) >= 9 and all(word.isalpha() for word in row[2:7])]
    return _of_length(tokenizer, list(dict.fromkeys(phrases)), 5, 12)


def _script(tokenizer: PreTrainedTokenizerFast, carriers: Sequence[str]) -> list[str]:
    others = {word for language in LANGUAGES for carrier in packaged(language) for word in words(carrier.text)}
    candidates = [*whole_words(tokenizer), *sorted(others)]
    foreign = dict.fromkeys(word for word in candidates if word.isalpha() and not _LATIN.search(word))
    return _of_length(tokenizer, list(foreign), 1, 3)


_POOLS: Mapping[Kind, Callable[[PreTrainedTokenizerFast, Sequence[str]], list[str]]] = MappingProxyType(
    {
        "rare": _rare,
        "dictionary": _dictionary,
        "common": _common,
        "pieces": _several,
        "and": _dictionary,
        "pair": _dictionary,
        "phrase": _phrase,
        "script": _script,
    }
)
