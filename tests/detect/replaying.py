"""Replayers for tests: in long passages as a scan judges in, in short contexts as it recovers in."""

from collections.abc import Sequence

from lmsanitator.detect.contexts import Context, make_contexts, make_passages
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.replay import Replayer
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.text import packaged

TEXTS = [carrier.text for carrier in packaged()]
_SOME = TEXTS[::8]
"""Passages take the tokens of every text they may be made of, which takes longer for all than the encoder does."""


def in_passages(encoder: FrozenEncoder, *sites: Site, count: int = 12, seed: int = 0) -> Replayer:
    return _replayer(
        encoder,
        sites,
        make_passages(encoder, _SOME, count, length=64, seed=seed),
        make_passages(encoder, _SOME, 60, length=64, seed=seed + 1),
    )


def in_contexts(encoder: FrozenEncoder, *sites: Site, count: int = 12) -> Replayer:
    contexts = make_contexts(encoder, TEXTS, count + 100, longest=24, seed=5)
    return _replayer(encoder, sites, contexts[:count], contexts[count:])


def _replayer(
    encoder: FrozenEncoder, sites: Sequence[Site], contexts: Sequence[Context], clean: Sequence[Context]
) -> Replayer:
    outputs = encoder.outputs_of_ids([context.clean for context in clean], sites)
    return Replayer(encoder, sites, contexts, {site: CleanSpread.of(outputs[site]) for site in sites}, exact=True)
