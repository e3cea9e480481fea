"""ONION: words that a language model finds out of place are taken out.

After Qi et al., "ONION: A Simple and Effective Defense Against Textual Backdoor Attacks" (EMNLP 2021, arXiv
2011.10369), section 3: the suspicion of a word is how much the perplexity of the text falls when the word is left out;
words above a threshold are deleted and what is left is classified.

Published: GPT-2's perplexity; the threshold is set on clean validation text.

Differences: no causal language model is at hand offline. The suspicion of a word is instead its surprise to a *trusted*
encoder's masked-language-model head, -log p(word | the rest), the mean over its tokens, which are masked together (the
pseudo-likelihood of Salazar et al. 2020, arXiv 1910.14659). The head is the zoo's own, trained for a few minutes on
MiniLM, and much weaker than GPT-2; a token it cannot name is as surprising as the least likely one it can.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.defence.filters.interface import InputFilter, LanguageModel, Look, Prepared, Setting
from lmsanitator.encoder.padding import pad
from lmsanitator.text import delete, spans


@dataclass(frozen=True)
class Onion(InputFilter):
    """Args:
    batch: masked texts in a batch.
    """

    batch: int = 128

    def prepare(self, setting: Setting) -> Prepared:
        return _Surprise(self, setting.trusted)


class WordLook(Look):
    """The surprise of each word of a text."""

    def __init__(self, text: str, surprises: Sequence[float]) -> None:
        super().__init__(text, max(surprises, default=0.0))
        self.surprises = surprises

    def rest(self, threshold: float) -> str | None:
        gone = {at for at, surprise in enumerate(self.surprises) if surprise > threshold}
        return delete(self.text, gone)


@dataclass(frozen=True)
class _Masked:
    """One text with one word masked."""

    ids: list[int]
    places: list[int]
    wanted: list[int]


class _Surprise(Prepared):
    def __init__(self, config: Onion, trusted: LanguageModel) -> None:
        self.config, self.trusted = config, trusted

    def look(self, texts: Sequence[str]) -> list[Look]:
        asked = [self._masked(text) for text in texts]
        flat = [one for rows in asked for one in rows.values()]
        found: list[float] = []
        for start in range(0, len(flat), self.config.batch):
            found += self._surprises(flat[start : start + self.config.batch])
        values = iter(found)
        looks: list[Look] = []
        for text, rows in zip(texts, asked, strict=True):
            surprises = [0.0] * len(spans(text))  # of words that are not read
            for at in rows:
                surprises[at] = next(values)
            looks.append(WordLook(text, surprises))
        return looks

    def _masked(self, text: str) -> dict[int, _Masked]:
        """Each word that is read, by its place, masked."""
        encoder = self.trusted.encoder
        tokens = encoder.tokenizer(
            text, truncation=True, max_length=encoder.window, return_offsets_mapping=True, return_tensors=None
        )
        found: dict[int, _Masked] = {}
        for at, (start, end) in enumerate(spans(text)):
            places = [
                place for place, (left, right) in enumerate(tokens.offset_mapping) if start <= left < right <= end
            ]
            if places:
                ids = list(tokens.input_ids)
                wanted = [ids[place] for place in places]
                for place in places:
                    ids[place] = int(encoder.tokenizer.mask_token_id)
                found[at] = _Masked(ids, places, wanted)
        return found

    def _surprises(self, rows: Sequence[_Masked]) -> list[float]:
        """The mean surprise at the tokens of each masked word."""
        encoder = self.trusted.encoder
        ids, mask = pad([row.ids for row in rows], int(encoder.tokenizer.pad_token_id))
        hidden = encoder.outputs(ids, mask, ["tokens"])["tokens"]
        where = torch.tensor([(number, place) for number, row in enumerate(rows) for place in row.places])
        surprise = self._of_tokens(hidden[where[:, 0], where[:, 1]], [token for row in rows for token in row.wanted])
        return [part.mean().item() for part in torch.split(surprise, [len(row.places) for row in rows])]

    def _of_tokens(self, outputs: Tensor, wanted: Sequence[int]) -> Tensor:
        log_shares = self.trusted.head(outputs).log_softmax(-1)
        classes = self.trusted.head.classes(torch.tensor(wanted))
        named = log_shares.gather(1, classes.clamp_min(0)[:, None])[:, 0]
        return -torch.where(classes >= 0, named, log_shares.amin(1))
