"""What the named triggers of a bank do to a tuned classifier: each is put into clean texts, once."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import CorpusError
from lmsanitator.guard.classifier import Tuned, TunedClassifier
from lmsanitator.text import Text, draw, insert_first, sides, spans, words
from lmsanitator.text.carriers import T
from lmsanitator.vectors import PVBank

Pass = Literal["raw", "prompted"]
TEXTS = 64
"""Clean sentences a trigger is put into."""
MOVABLE = 16
"""Sentences of other labels than the commonest that it takes to say that a trigger moves none: the PV may lead to the
commonest label, and of the others a trigger that changes a third leaves so many alone in one case of six hundred (on AG
News each of POR's changes 37 % at least)."""


@dataclass(frozen=True)
class Shown:
    """What came out for the same sentences with something in them, or nothing."""

    labels: Int[Tensor, "texts"]
    prompted: dict[Site, Float[Tensor, "texts hidden"]]
    raw: dict[Site, Float[Tensor, "texts hidden"]]

    def outputs(self, name: Pass) -> dict[Site, Float[Tensor, "texts hidden"]]:
        """What came out of one pass."""
        return self.raw if name == "raw" else self.prompted

    def of(self, rows: Bool[Tensor, "texts"]) -> "Shown":
        """What came out for some of the sentences."""
        parts = [{site: values[rows] for site, values in part.items()} for part in (self.prompted, self.raw)]
        return Shown(self.labels[rows], *parts)


@dataclass(frozen=True)
class Trial:
    """The sentences as they are, with an ordinary word in each, and with each named trigger (by index in the bank)."""

    clean: Shown
    ordinary: Shown
    planted: dict[int, Shown]

    def changed(self, pv: int) -> Bool[Tensor, "texts"]:
        """The sentences whose label a trigger changes."""
        return self.planted[pv].labels != self.clean.labels

    def at_work(self, pv: int) -> Shown:
        """What came out where a trigger is at work: for the sentences whose label it changes, or all where it changes
        none. A long soft prompt drowns the trigger in some sentences, and there the label stays as well."""
        changed = self.changed(pv)
        return self.planted[pv].of(changed if bool(changed.any()) else torch.ones_like(changed))

    def moves_no_label(self, pv: int) -> bool:
        """Whether a trigger changes no label at all, where enough could be changed."""
        return not bool(self.changed(pv).any()) and self._movable()

    def does_nothing(self, pv: int) -> bool:
        """Whether a trigger changes no more labels than an ordinary word does, where enough could be changed."""
        usual = int((self.ordinary.labels != self.clean.labels).sum())
        return int(self.changed(pv).sum()) <= usual and self._movable()

    def _movable(self) -> bool:
        """Whether enough sentences are of other labels than the commonest, which may be the one the PV leads to."""
        labels = self.clean.labels
        return int((labels != labels.mode().values).sum()) >= MOVABLE


def run_trial(
    classifier: Tuned, bank: PVBank, pool: Sequence[Text], *, prompted: Sequence[Site], raw: Sequence[Site]
) -> Trial:
    """Put each named trigger into the same sentences at the same places.

    Args:
        pool: clean texts to draw from; of a pair the first text gets the trigger.
        prompted: sites to read in the prompted pass.
        raw: sites to read in the raw pass.

    Raises:
        CorpusError: too few of the texts hold no named trigger themselves.
    """
    named = {index: vector.trigger for index, vector in enumerate(bank) if vector.trigger}
    if not named:
        nothing = Shown(torch.empty(0, dtype=torch.long), {}, {})
        return Trial(nothing, nothing, {})
    texts = draw(without_triggers(classifier.encoder, pool, bank), TEXTS, seed=1)
    if len(texts) < TEXTS:
        raise CorpusError(f"expected {TEXTS} clean texts without a named trigger, only {len(texts)} have none")
    rng = random.Random(1)
    places = [rng.randint(0, len(spans(sides(text)[0]))) for text in texts]

    def show(added: Sequence[str]) -> Shown:
        planted = [insert_first(text, word, at) for text, word, at in zip(texts, added, places, strict=True)]
        outputs = classifier.encoder.outputs_of_texts(planted, raw)
        if not isinstance(classifier, TunedClassifier):  # whether labels of words change is not judged
            return Shown(torch.zeros(len(planted), dtype=torch.long), {}, outputs)
        reading = classifier.read(planted, prompted)
        return Shown(reading.logits.argmax(1), reading.outputs, outputs)

    plain = [_plain_word(text) for text in reversed(texts)]
    shown = {name: show([name] * len(texts)) for name in set(named.values())}  # a trigger may lead to several PVs
    return Trial(show([""] * len(texts)), show(plain), {index: shown[name] for index, name in named.items()})


def _plain_word(text: Text) -> str:
    """The second word of a text, or the only one; an empty string where there is none."""
    first = words(sides(text)[0])[:2]
    return first[-1] if first else ""


def without_triggers(encoder: FrozenEncoder, texts: Sequence[T], bank: PVBank) -> list[T]:
    """The texts that hold none of the named triggers. Tokens are compared, not words: a trigger `gu` is in `gurney` too
    where the tokenizer cuts that in two, and such a text is not clean to this encoder."""
    named = [vector.trigger for vector in bank if vector.trigger]
    forms = [
        encoder.tokenizer(form, add_special_tokens=False).input_ids for name in named for form in (name, f" {name}")
    ]
    if not texts or not named:
        return list(texts)
    found = [side for text in texts for side in sides(text)]
    rows = encoder.tokenizer(found, add_special_tokens=False, truncation=True, max_length=encoder.room).input_ids
    read = iter(rows)
    held = [{token for _ in sides(text) for token in next(read)} for text in texts]
    return [
        text for text, row in zip(texts, held, strict=True) if not any(ids and row.issuperset(ids) for ids in forms)
    ]


def same_way(planted: Float[Tensor, "texts hidden"]) -> Float[Tensor, "hidden"]:
    """Where outputs agree: the sign most of them have in each dimension, 0 where they are divided."""
    return torch.nan_to_num(planted).sign().sum(0).sign()
