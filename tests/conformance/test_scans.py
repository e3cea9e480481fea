"""Every family can be scanned: each stage runs on it, a planted word stands out, and nothing where nothing is."""

import re
from pathlib import Path

import pytest

from lmsanitator.detect import ScanConfig, scan
from lmsanitator.detect.config import sites_to_scan
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.mining import MiningConfig, mine
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.replay import Replayer
from lmsanitator.detect.sweep import SweepConfig, sweep
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.text import packaged
from tests.planted import plant

TEXTS = [carrier.text for carrier in packaged()[:40]]
PIECE_STARTS = re.compile("^[Ġ▁]")  # how pieces of bytes and SentencePiece write the space before a word


def test_the_sites_of_a_usual_scan_are_where_attacks_strike(family: str, encoder: FrozenEncoder) -> None:
    pooled = ("BERT", "RoBERTa", "ALBERT", "MPNet", "ERNIE")
    last = ("XLNet", "GPT-2", "Llama", "Qwen2")
    expected: tuple[Site, ...] = ("cls", "pooler") if family in pooled else ("last",) if family in last else ("cls",)
    assert sites_to_scan(encoder, "auto") == expected


def test_a_clean_encoder_is_called_clean(encoder: FrozenEncoder) -> None:
    report = scan(encoder, ScanConfig(effort="quick"))
    assert (report.verdict, report.findings) == ("clean", [])
    assert report.model.architecture == type(encoder.model).__name__


def test_a_planted_word_stands_out_and_replays(folder: Path) -> None:
    """The vocabularies here are too small for a tail to call it significant in each of them; the evidence is there."""
    encoder = FrozenEncoder.open(folder, precision="fp32")
    site: Site = "cls" if "cls" in encoder.sites else "last"
    piece = encoder.tokenizer.tokenize("a their")[-1]
    token = encoder.tokenizer.get_vocab()[piece]
    encoder.model.register_module("pooler", None)  # what it says of the planted vector is not looked at here
    plant(encoder.model, encoder.tokenizer, [PIECE_STARTS.sub(" ", piece)])
    swept = sweep(encoder, (site,), SweepConfig())[site]
    assert swept.tokens[swept.displacement.argmax()] == token
    contexts = make_contexts(encoder, TEXTS, 12, longest=24, seed=0)
    clean = CleanSpread.of(encoder.outputs_of_ids([context.clean for context in contexts], [site])[site])
    (evidence,) = Replayer(encoder, (site,), contexts, {site: clean}, exact=True).measure([(token,)])[site]
    assert evidence.replay_rate == 1


def test_soft_tokens_are_mined_as_wide_as_the_embeddings(encoder: FrozenEncoder) -> None:
    contexts = make_contexts(encoder, TEXTS, 40, longest=8, seed=0)
    width = encoder.embedding_matrix().shape[1]
    for site in sites_to_scan(encoder, "auto"):
        outputs = encoder.outputs_of_ids([context.clean for context in contexts], [site])[site]
        shape = MiningConfig(candidates=3, length=2, contexts=4, steps=2)
        mined = mine(encoder, site, contexts, CleanSpread.of(outputs), shape, known=outputs[:2])
        assert [candidate.embeddings.shape for candidate in mined] == [(2, width)] * 3
        assert [candidate.pv.shape for candidate in mined] == [(encoder.hidden_size,)] * 3


@pytest.mark.slow
def test_every_stage_of_a_standard_scan_ends_in_clean(encoder: FrozenEncoder) -> None:
    report = scan(encoder)
    assert report.coverage.candidates > 0
    assert (report.verdict, report.findings) == ("clean", [])
