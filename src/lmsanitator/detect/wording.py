"""What it takes to put a trigger into better words: what completion and the search for relatives share."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from lmsanitator.detect.blanks import Tokens
from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.growth import Growth
from lmsanitator.detect.lexicon import Word, typed
from lmsanitator.detect.replay import Replayer
from lmsanitator.encoder import FrozenEncoder, Site


@dataclass(frozen=True)
class Wording:
    """Where words are compared, and which words there are.

    Args:
        replayer: fresh passages; the ones that triggers are confirmed in.
        judging: many more of them.
        growth: the search at each site, which proposes and measures in short contexts.
        words: those of a dictionary.
        written: those of them that are several tokens.
    """

    replayer: Replayer
    judging: Replayer
    growth: Mapping[Site, Growth]
    words: Collection[str] = ()
    written: Sequence[Word] = ()

    @property
    def encoder(self) -> FrozenEncoder:
        """The one that is scanned."""
        return self.replayer.encoder

    def typed(self, tokens: Tokens) -> str | None:
        """The tokens as words a person can type, None where typing them gives other tokens."""
        return typed(self.encoder, tokens)


def becomes(item: Confirmed, evidence: Evidence) -> Confirmed:
    """The same trigger in other words; it keeps its p-value."""
    return replace(item, evidence=replace(evidence, site=item.evidence.site), elsewhere=())
