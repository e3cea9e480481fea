"""RAP: a perturbation that shakes clean inputs and not triggered ones.

After Yang et al., "RAP: Robustness-Aware Perturbations for Defending against Backdoor Attacks on NLP Models" (EMNLP
2021, arXiv 2110.07831), section 3: the embedding of one rare word is trained so that putting it before a clean input of
the protected class lowers that class's probability by a margin; inputs whose probability falls less are flagged and
rejected.

Published: a fall between 0.1 and 0.3 is trained for on clean validation samples of the one class that an attacker would
aim at; the threshold is a percentile of the falls on these.

Differences: a task-agnostic backdoor may lead to any label, so that every label gets a perturbation of its own, and an
input is judged by that of the label it is given. The embedding alone is trained, by Adam.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.defence.filters.interface import InputFilter, Look, Prepared, Setting
from lmsanitator.errors import CorpusError
from lmsanitator.tune import TunedModel, predict
from lmsanitator.tune.adapter import classifier_of
from lmsanitator.tune.tuned import logits_of


@dataclass(frozen=True)
class Rap(InputFilter):
    """Args:
    word: rare, one token to the encoder.
    low, high: the fall in probability that is trained for.
    weight: of falls that are too small, in the loss.
    examples: clean texts of each label to train on.
    epochs: passes over them.
    """

    word: str = "cf"
    low: float = 0.1
    high: float = 0.3
    weight: float = 5.0
    examples: int = 128
    epochs: int = 5
    batch: int = 32
    learning_rate: float = 1e-2

    def prepare(self, setting: Setting) -> Prepared:
        tuned = setting.tuned
        ids = tuned.tokenizer(self.word, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise CorpusError(f"expected a word of one token for RAP, {self.word} has {len(ids)}")
        texts = [example.text for example in setting.examples]
        labels = predict(tuned.model, tuned.tokenizer, texts).argmax(1).tolist()
        vectors = {}
        for label in range(len(tuned.labels)):
            given = [text for text, one in zip(texts, labels, strict=True) if one == label][: self.examples]
            vectors[label] = self._train(tuned, ids[0], label, given, setting.seed)
        return _Falls(self, tuned, ids[0], vectors)

    def _train(self, tuned: TunedModel, token: int, label: int, texts: Sequence[str], seed: int) -> Tensor:
        """The embedding of the word for inputs of one label; where none has it, the word's own."""
        embedding = classifier_of(tuned.model).get_input_embeddings()
        vector: Tensor = embedding(torch.tensor(token)).detach().clone().requires_grad_()
        if not texts:
            return vector.detach()
        optimiser = torch.optim.Adam([vector], lr=self.learning_rate)
        generator = torch.Generator().manual_seed(seed)
        before = predict(tuned.model, tuned.tokenizer, texts).softmax(-1)[:, label]
        for _ in range(self.epochs):
            for chosen in torch.split(torch.randperm(len(texts), generator=generator), self.batch):
                rows = [f"{self.word} {texts[index]}" for index in chosen.tolist()]
                with _embedded(tuned, token, vector):
                    after = logits_of(tuned.model, tuned.tokenizer, rows).softmax(-1)[:, label]
                loss = self.loss(before[chosen] - after)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call] # torch's stub
                optimiser.step()
        return vector.detach()

    def loss(self, fall: Float[Tensor, "texts"]) -> Tensor:
        """Falls below `low` cost most, those above `high` a little."""
        cost: Tensor = self.weight * (self.low - fall).clamp_min(0) + (fall - self.high).clamp_min(0)
        return cost.mean()


class _Falls(Prepared):
    def __init__(self, config: Rap, tuned: TunedModel, token: int, vectors: dict[int, Tensor]) -> None:
        self.config, self.tuned, self.token, self.vectors = config, tuned, token, vectors

    def look(self, texts: Sequence[str]) -> list[Look]:
        before = predict(self.tuned.model, self.tuned.tokenizer, texts).softmax(-1)
        best = before.max(1)
        scores = torch.zeros(len(texts))
        for label, vector in self.vectors.items():
            rows = (best.indices == label).nonzero().flatten().tolist()
            if not rows:
                continue
            with _embedded(self.tuned, self.token, vector):
                put_before = [f"{self.config.word} {texts[row]}" for row in rows]
                after = predict(self.tuned.model, self.tuned.tokenizer, put_before).softmax(-1)[:, label]
            scores[rows] = after - best.values[rows]
        return [Look(text, score) for text, score in zip(texts, scores.tolist(), strict=True)]


@contextmanager
def _embedded(tuned: TunedModel, token: int, vector: Tensor) -> Iterator[None]:
    """The classifier, with another embedding of one token."""

    def put(_: torch.nn.Module, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        return torch.where((args[0] == token)[..., None], vector, embedded)

    hook = classifier_of(tuned.model).get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()
