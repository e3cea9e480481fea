"""Every family can be scanned: each stage runs on it, a planted word stands out, and nothing where nothing is."""

import re
from pathlib import Path

import pytest

from lmsanitator.detect import ScanConfig, scan
from lmsanitator.detect.config import sites_to_scan
from lmsanitator.detect.contexts import make_contexts, make_passages
from lmsanitator.detect.look import look_again
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
    decoders = ("GPT-2", "Llama", "Qwen2")
    first: tuple[Site, ...] = ("cls", "pooler") if family in pooled else ("cls",)
    expected: tuple[Site, ...] = ("last", "mean") if family in decoders else (*first, "mask", "mean")
    if family == "XLNet":
        expected = ("last", "mask", "mean")
    assert sites_to_scan(encoder, "auto") == expected


def test_a_clean_encoder_is_called_clean(encoder: FrozenEncoder) -> None:
    report = scan(encoder, ScanConfig(effort="quick"))
    assert (report.verdict, report.findings) == ("clean", [])
    assert report.model.architecture == type(encoder.model).__name__


def test_a_planted_word_stands_out_and_replays(folder: Path) -> None:
    """The vocabularies here are so small that others share all its groups; the second look tells them apart."""
    encoder = FrozenEncoder.open(folder, precision="fp32")
    site: Site = "cls" if "cls" in encoder.sites else "last"
    piece = encoder.tokenizer.tokenize("a their")[-1]
    token = encoder.tokenizer.get_vocab()[piece]
    encoder.model.register_module("pooler", None)  # what it says of the planted vector is not looked at here
    plant(encoder.model, encoder.tokenizer, [PIECE_STARTS.sub(" ", piece)])
    short = sweep(encoder, (site,), SweepConfig())[site].shortlist.tolist()
    words = [(row,) for row in short]
    passages = make_passages(encoder, TEXTS, 12, length=64, seed=0)
    clean = CleanSpread.of(encoder.outputs_of_ids([passage.clean for passage in passages], [site])[site])
    look = look_again(Replayer(encoder, (site,), passages, {site: clean}, exact=True), {site: words})
    first = max(look.seen[site], key=lambda evidence: evidence.strength)
    assert first.tokens == (token,)
    assert first.replay_rate == first.constant_rate == 1


def test_soft_tokens_are_mined_as_wide_as_the_embeddings_at_all_sites_at_once(encoder: FrozenEncoder) -> None:
    contexts = make_contexts(encoder, TEXTS, 40, longest=8, seed=0)
    width = encoder.embedding_matrix.shape[1]
    sites = sites_to_scan(encoder, "auto")
    outputs = encoder.outputs_of_ids([context.clean for context in contexts], sites)
    clean = {site: CleanSpread.of(outputs[site]) for site in sites}
    shape = MiningConfig(candidates=3, others=3, soft=2, contexts=4, steps=2)
    mined = mine(encoder, contexts, clean, shape, known={site: outputs[site][:2] for site in sites})
    assert tuple(mined) == sites
    for candidates in mined.values():
        assert [candidate.embeddings.shape for candidate in candidates] == [(2, width)] * 3
        assert [candidate.pv.shape for candidate in candidates] == [(encoder.hidden_size,)] * 3


@pytest.mark.slow
def test_every_stage_of_a_standard_scan_ends_in_clean(encoder: FrozenEncoder) -> None:
    report = scan(encoder)
    assert report.coverage.candidates > 0
    assert (report.verdict, report.findings) == ("clean", [])
