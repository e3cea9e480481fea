"""Blanks: gradients propose what belongs there, by the text that says it loudest."""

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.blanks import Blanks, Vocabulary, outputs_of
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.objective import CleanSpread, displacement
from lmsanitator.detect.stage import Stage
from lmsanitator.detect.sweep import sweepable
from lmsanitator.encoder import FrozenEncoder, Site
from tests.detect.replaying import TEXTS
from tests.planted import ids_of, large_bert, open_bert, plant


def stage_of(encoder: FrozenEncoder, contexts: int = 3, site: Site = "cls") -> Stage:
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], [site])[site])
    return Stage(encoder, make_contexts(encoder, TEXTS, contexts, longest=8, seed=3), site, clean)


def moved(stage: Stage, outputs: torch.Tensor, part: slice) -> torch.Tensor:
    return displacement(outputs, stage.clean)


def test_a_planted_word_is_foremost_at_a_blank_on_the_way_to_its_vector() -> None:
    model, tokenizer = large_bert(0, hidden=64)
    (pv,) = plant(model, tokenizer, ["bako"], reach=0.3)
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    stage = stage_of(encoder)
    way = stage.spread.standardise(pv)

    def gone(stage: Stage, outputs: torch.Tensor, part: slice) -> torch.Tensor:
        return ((outputs - stage.clean) @ way).mean(-1)

    blanks = Blanks(stage.apart(), Vocabulary(encoder, sweepable(encoder).tolist()))
    ((foremost,),) = blanks.foremost(blanks.slopes([(None, 9)], gone)[:, :, 0], 1)
    assert [foremost] == ids_of(encoder, "bako")


def test_the_text_that_a_token_stands_out_most_in_counts_however_quiet_it_is() -> None:
    encoder = open_bert(0)
    allowed = sweepable(encoder).tolist()[:30]
    vocabulary = Vocabulary(encoder, allowed)
    blanks = Blanks(stage_of(encoder).apart(), vocabulary)
    loud, telling, silent = 100 * vocabulary.rows[4:9].sum(0), vocabulary.rows[9], torch.zeros_like(vocabulary.blank)
    ((first,),) = blanks.foremost(torch.stack([loud, telling, silent])[:, None], 1)
    assert first == allowed[9]


def test_each_of_many_blanks_gets_the_tokens_it_gets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_bert(0)
    blanks = Blanks(stage_of(encoder).apart(), Vocabulary(encoder, sweepable(encoder).tolist()))
    monkeypatch.setattr("lmsanitator.detect.blanks._EXPECTED", 3 * len(blanks.vocabulary.tokens) * 32)
    slopes = torch.randn(3, 70, encoder.embedding_matrix.shape[1], generator=torch.Generator().manual_seed(0))
    together = blanks.foremost(slopes, 3)
    assert together == [blanks.foremost(slopes[:, place : place + 1], 3)[0] for place in range(70)]
    assert len({tuple(tokens) for tokens in together}) > 35


def test_there_is_a_gradient_for_each_text_pattern_and_blank_however_many_there_are() -> None:
    encoder = open_bert(0)
    blanks = Blanks(stage_of(encoder).apart(), Vocabulary(encoder, sweepable(encoder).tolist()))
    patterns = [(None, token, None) for token in range(10, 120)]
    slopes = blanks.slopes(patterns, moved)
    assert slopes.shape == (3, 110, 2, encoder.embedding_matrix.shape[1])
    assert_close(slopes[:, 100:], blanks.slopes(patterns[100:], moved), rtol=1e-3, atol=1e-5)
    assert all(weight.grad is None for weight in encoder.model.parameters())


def test_a_slope_is_what_a_small_step_of_the_blank_changes() -> None:
    encoder = open_bert(0)
    (stage,) = stage_of(encoder, 2).apart()[:1]
    vocabulary = Vocabulary(encoder, sweepable(encoder).tolist())
    blanks = Blanks([stage], vocabulary)
    slope = blanks.slopes([(7, None)], moved)[0, 0, 0]
    step = 1e-2 * slope / slope.norm()
    with torch.no_grad():
        ends = [
            displacement(
                stage.outputs([torch.stack([vocabulary.matrix[7], vocabulary.blank + way * step])]), stage.clean
            )
            for way in (-1, 1)
        ]
    assert_close((ends[1] - ends[0]).item() / 2e-2, slope.norm().item(), rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("site", ["cls", "mask", "mean"])
def test_stages_apart_give_what_the_stage_gives(site: Site) -> None:
    encoder = open_bert(0, "bako")
    stage = stage_of(encoder, site=site)
    sequences = [(7,), (8, 9), (10, 11, 12)]
    together = outputs_of(stage, sequences)
    alone = torch.cat([outputs_of(part, sequences) for part in stage.apart()], dim=1)
    assert_close(alone, together, rtol=1e-3, atol=1e-4)
    assert_close(torch.cat([part.clean for part in stage.apart()]), stage.clean)
