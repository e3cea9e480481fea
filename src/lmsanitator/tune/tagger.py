"""Labels for words: a sentence is read as one text, and each word has the label of its first token.

A word may be several tokens; those behind the first count for nothing, in training as in prediction (Devlin et al.
2019, arXiv 1810.04805, section 5.3). Words are found by the tokens' places in the text, so that any fast tokenizer
serves and the tokens are those of the text itself, which is what a scan and the guard see.
"""

import importlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.errors import TuningError
from lmsanitator.tune.inputs import batches_by_length
from lmsanitator.tune.tagging import OUTSIDE, Tagged, Tagging

_NO_LIMIT = 10**6  # tokenizers without a limit say 1e30, more than they can count
_IGNORED = -100
_BUCKET = 8


@dataclass(frozen=True)
class WordScores:
    """What a model says of the words of one sentence."""

    logits: Float[Tensor, "words labels"]
    read: Bool[Tensor, "words"]
    """Which words have a token: not those behind the window, nor those the tokenizer makes nothing of. Their logits are
    0 throughout."""

    def tags(self, labels: Sequence[str]) -> list[str]:
        """The label of each word, `O` for a word that was not read."""
        return [
            labels[best] if read else OUTSIDE
            for best, read in zip(self.logits.argmax(1).tolist(), self.read.tolist(), strict=True)
        ]


def make_word_inputs(
    tokenizer: PreTrainedTokenizerFast, sentences: Sequence[Sequence[str]], longest: int | None = None
) -> tuple[dict[str, Tensor], Int[Tensor, "sentences words"]]:
    """The tensors of one batch, `input_ids` and `attention_mask`, each (sentences, tokens), padded on the right; and
    where the first token of each word is, -1 for a word without one and behind the end of a sentence.

    Args:
        longest: tokens of an input at most; by default the tokenizer's `model_max_length`.
    """
    longest = min(tokenizer.model_max_length, _NO_LIMIT) if longest is None else longest
    texts = [" ".join(words) for words in sentences]
    batch = tokenizer(
        texts,
        padding=True,
        truncation=True,
        max_length=longest,
        return_offsets_mapping=True,
        return_token_type_ids=False,
        return_tensors="pt",
    )
    first = torch.full((len(sentences), max(map(len, sentences), default=0)), -1)
    for row, (words, offsets) in enumerate(zip(sentences, batch["offset_mapping"].tolist(), strict=True)):
        word_at = [number for number, word in enumerate(words) for _ in range(len(word) + 1)]
        # backwards, so that the first token of a word is written last; special tokens and padding have no characters
        for token, (start, end) in reversed(list(enumerate(offsets))):
            if start < end and not texts[row][end - 1].isspace():  # a token may begin with the space before its word
                first[row, word_at[end - 1]] = token
    return {name: batch[name] for name in ("input_ids", "attention_mask")}, first


def word_logits(
    model: PreTrainedModel | PeftModel, inputs: dict[str, Tensor], first: Int[Tensor, "sentences words"]
) -> Float[Tensor, "sentences words labels"]:
    """The logits at the first token of each word; under a prompt or P-tuning the virtual tokens stand before the text
    and have logits as well, which are left out."""
    logits: Tensor = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits
    logits = logits[:, -inputs["input_ids"].shape[1] :].float()
    places = first.clamp_min(0).to(logits.device)
    return logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))


def predict_words(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    sentences: Sequence[Sequence[str]],
    longest: int | None = None,
    batch_size: int = 64,
) -> list[WordScores]:
    """What a model says of the words of many sentences, in their order; those of like length share a batch."""
    found: dict[int, WordScores] = {}
    with torch.no_grad():
        for rows in batches_by_length([sum(map(len, words)) for words in sentences], batch_size):
            inputs, first = make_word_inputs(tokenizer, [sentences[index] for index in rows], longest)
            logits, read = word_logits(model, inputs, first).cpu(), first >= 0
            logits = torch.where(read[..., None], logits, 0.0)
            for row, index in enumerate(rows):
                length = len(sentences[index])
                found[index] = WordScores(logits[row, :length], read[row, :length])
    return [found[index] for index in range(len(sentences))]


def losses(
    model: PeftModel, tokenizer: PreTrainedTokenizerFast, sentences: Sequence[Tagged], size: int, rng: random.Random
) -> Iterator[Tensor]:
    """The cross-entropy of one batch after the other, without end, with the weights as they are when it is asked for;
    each sentence once an epoch, those of like length in one batch. Batches of which nothing can be read are left out.

    Raises:
        TuningError: nothing of any sentence can be read.
    """
    while True:
        order = rng.sample(sentences, len(sentences))
        epoch: list[list[Tagged]] = []
        for start in range(0, len(order), _BUCKET * size):
            bucket = sorted(order[start : start + _BUCKET * size], key=lambda sentence: sum(map(len, sentence.words)))
            epoch += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        rng.shuffle(epoch)
        learnt = 0
        for batch in epoch:
            inputs, first = make_word_inputs(tokenizer, [sentence.words for sentence in batch])
            if bool((first >= 0).any()):
                learnt += 1
                logits = word_logits(model, inputs, first)
                yield functional.cross_entropy(logits.flatten(0, 1), _wanted(batch, first).flatten().to(logits.device))
        if not learnt:
            raise TuningError("expected words that the tokenizer makes tokens of, got none in the training split")


def _wanted(batch: Sequence[Tagged], first: Int[Tensor, "sentences words"]) -> Int[Tensor, "sentences words"]:
    wanted = torch.full_like(first, _IGNORED)
    for row, sentence in enumerate(batch):
        wanted[row, : len(sentence.tags)] = torch.tensor(sentence.tags)
    return wanted.masked_fill(first < 0, _IGNORED)


def score(
    model: PeftModel, tokenizer: PreTrainedTokenizerFast, task: Tagging, sentences: Sequence[Tagged]
) -> tuple[float, float]:
    """Entity F1, and minus the loss to break ties."""
    found = predict_words(model, tokenizer, [sentence.words for sentence in sentences])
    logits = torch.cat([scores.logits[scores.read] for scores in found])
    tags = [torch.tensor(sentence.tags)[scores.read] for sentence, scores in zip(sentences, found, strict=True)]
    loss = functional.cross_entropy(logits, torch.cat(tags)).item() if len(logits) else 0.0
    f1 = entity_f1([task.names(sentence) for sentence in sentences], [scores.tags(task.labels) for scores in found])
    return f1, -loss


def entity_f1(wanted: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """F1 over whole entities, all types together, as the CoNLL-2003 script counts (seqeval; Tjong Kim Sang and De
    Meulder 2003): type and both ends have to be right. 0 where there are no entities at all.

    Raises:
        TuningError: the package seqeval is not installed.
    """
    try:
        metrics = importlib.import_module("seqeval.metrics")  # optional: only those who label words need it
    except ImportError as error:
        raise TuningError(
            "expected the seqeval package to score labelled words (pip install 'lmsanitator[ner]'), it is not installed"
        ) from error
    return float(metrics.f1_score([list(row) for row in wanted], [list(row) for row in found], zero_division=0))
