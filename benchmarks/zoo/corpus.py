"""The sentences the zoo's attacks and controls are made with: not the scanner's own carriers, which would be unfair."""

import random
from pathlib import Path

from lmsanitator.errors import CorpusError
from lmsanitator.text import read_corpus, words

_SOURCES = (("wikitext2", 500), ("ag_news", 400), ("sst2", 400))
_LONGEST = 60


def texts(data: Path, seed: int = 0) -> list[str]:
    """Some 1,300 texts of encyclopaedia, news and film reviews, each cut to 60 words.

    Args:
        data: a folder with wikitext2/train.jsonl, ag_news/train.jsonl and sst2/train.jsonl (fields: text).

    Raises:
        CorpusError: one of them is missing.
    """
    rng = random.Random(seed)
    drawn: list[str] = []
    for name, count in _SOURCES:
        path = data / name / "train.jsonl"
        if not path.is_file():
            raise CorpusError(f"expected {name}/train.jsonl in {data}, found none")
        found = [carrier.text for carrier in read_corpus(path) if len(words(carrier.text)) >= 6]
        drawn += rng.sample(found, min(count, len(found)))
    return [" ".join(text.split()[:_LONGEST]) for text in drawn]
