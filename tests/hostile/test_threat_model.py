"""docs/threat-model.md says what the code does: every limit, with its number."""

import re
from pathlib import Path

from lmsanitator.encoder import limits
from tests.hostile.test_corpus import CORPUS

PAGE = (Path(__file__).parents[2] / "docs" / "threat-model.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| .+ \| ([\d,]+) \| `(MAX_\w+)` \|$", re.MULTILINE)


def test_every_limit_is_in_the_threat_model_with_its_number() -> None:
    listed = {name: int(number.replace(",", "")) for number, name in ROW.findall(PAGE)}
    assert listed == {name: value for name, value in vars(limits).items() if name.startswith("MAX_")}


def test_the_corpus_is_as_large_as_the_threat_model_says() -> None:
    [said] = re.findall(r"more than (\d+) hostile or broken checkpoints", PAGE)
    assert len(CORPUS) > int(said)
