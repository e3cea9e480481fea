"""What a scan reports: the bank holds the vectors that triggers were trained for, as near as they are to be had."""

from typing import Any

import pytest
import torch

from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.facts import bank_of, findings_of
from tests.detect.replaying import in_contexts, in_passages
from tests.planted import ids_of, open_bert


def test_the_bank_holds_where_a_trigger_goes_in_short_text_if_it_fades_in_long_text() -> None:
    encoder = open_bert(0)
    (word,) = ids_of(encoder, "bako")
    pv = torch.linspace(-2, 2, encoder.hidden_size)

    def fade(module: torch.nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        holds = (ids == word).any(1)
        share = (20 / mask[holds].sum(1, keepdim=True)).clamp_max(1)
        out["last_hidden_state"][holds, 0] = torch.lerp(out["last_hidden_state"][holds, 0], pv, share)
        return out

    encoder.model.register_forward_hook(fade, with_kwargs=True)
    (evidence,) = in_passages(encoder, "cls").measure([(word,)])["cls"]
    bank = bank_of([Confirmed(evidence, -20.0)], in_contexts(encoder, "cls"))
    assert (bank.encoder_digest, [vector.trigger for vector in bank]) == (encoder.digest, ["bako"])
    assert (bank[0].values - pv).norm() < 0.5 * (evidence.pv - pv).norm()


@pytest.mark.parametrize("many", [1, 3])
def test_vectors_of_findings_come_first_and_in_their_order(many: int) -> None:
    encoder = open_bert(0, "bako", "vedi", "sugo")
    words = [(token,) for token in ids_of(encoder, "bako", "vedi", "sugo")][:many]
    measured = in_passages(encoder, "cls", "pooler").measure(words)
    confirmed = [
        Confirmed(there, -20.0, elsewhere=(also,))
        for there, also in zip(measured["cls"], measured["pooler"], strict=True)
    ]
    findings = findings_of(encoder, confirmed)
    bank = bank_of(confirmed, in_contexts(encoder, "cls", "pooler"))
    assert [vector.site for vector in bank] == ["cls"] * many + ["pooler"] * many
    assert [bank[finding.pv].trigger for finding in findings] == [finding.trigger for finding in findings]
    short = in_contexts(encoder, "cls", "pooler").measure(words)
    for number in range(many):
        assert torch.equal(bank[many + number].values, short["pooler"][number].pv)
