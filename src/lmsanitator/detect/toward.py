"""From vectors to words: what leads where a mined candidate does.

With no word of a trigger in a text, nothing points at it as long as it is not known where it leads. Once that is known,
even roughly, the gradient of the way there points at its words from any text: for phrases of which no two words do
anything, too. So for each vector the pairs are looked for that go furthest its way (`pairs`). Toward the vectors with
the strongest ones sequences are grown from them, a token at a time, at either end. The strongest sequences are refined:
each of their tokens is exchanged, and others are put between them, as long as that makes them stronger, since what was
taken first was taken in the company of nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.blanks import Pattern, Tokens, Vocabulary
from lmsanitator.detect.pairs import PairConfig, pairs_toward
from lmsanitator.detect.stage import Stage
from lmsanitator.detect.ways import Gap, Ways

Watch = Callable[[list[float]], None]


@dataclass(frozen=True)
class TowardConfig:
    """Args:
    pairs: how the search begins.
    proposals: tokens proposed, and measured, for each end of a sequence.
    carried: sequences that are grown further toward each vector.
    grown: share of the vectors whose sequences are grown beyond three tokens, the strongest ones.
    refined: share of the vectors whose sequences are refined, the strongest ones.
    exchanged: tokens proposed, and measured, for each place of a sequence that is refined.
    rounds: of refinement, the most.
    longest: tokens of a sequence, at least 3.
    asked: carriers that are asked for tokens to begin with.
    contexts: carriers that sequences are measured in, and others that they are refined in: few, since there are many.
    context_tokens: their longest length.
    """

    pairs: PairConfig = field(default_factory=PairConfig)
    proposals: int = 4
    carried: int = 2
    grown: float = 1 / 2
    refined: float = 1 / 3
    exchanged: int = 4
    rounds: int = 3
    longest: int = 6
    asked: int = 12
    contexts: int = 2
    context_tokens: int = 12


def words_toward(
    asked: Stage,
    growing: Stage,
    refining: Stage,
    pvs: Float[Tensor, "vectors hidden"],
    vocabulary: Vocabulary,
    config: TowardConfig,
    done: Callable[[float], None],
    watch: Watch | None = None,
) -> list[Tokens]:
    """The strongest sequence of tokens that was found on the way to each vector, the strongest of them refined.

    Args:
        asked: natural text that says which tokens to grow from and with, and the site that is looked at.
        growing: other text, of the same spread and site, that sequences are measured in.
        refining: again other text.
        pvs: standardised as the stages' outputs are.
        vocabulary: the tokens a sequence may be made of.
        done: told the share of the steps that are done.
        watch: told after each length how strong the best sequence toward each vector is.
    """
    lengths = config.longest - 2
    steps = lengths + config.rounds
    found = _grown(Ways(growing, pvs, vocabulary, asked), config, lambda step: done(step / steps), watch)
    strongest = _strongest(found, config.refined)
    ways = Ways(refining, pvs, vocabulary)
    first = [found[vector][1] for vector in strongest]
    refined = _refined(ways, first, config, lambda step: done((lengths + step) / steps))
    sequences = [tokens for _, tokens in found]
    for vector, tokens in zip(strongest, refined, strict=True):
        sequences[vector] = tokens
    return sequences


def _grown(
    ways: Ways, config: TowardConfig, done: Callable[[int], None], watch: Watch | None
) -> list[tuple[float, Tokens]]:
    """The strongest sequence toward each vector, and how strong it is; those that go furthest are grown further."""
    best: list[tuple[float, Tokens]] = [(float("-inf"), ())] * len(ways)
    tried = [(vector, tokens) for vector, found in enumerate(pairs_toward(ways, config.pairs)) for tokens in found]
    going_on: Sequence[int] = range(len(ways))
    for length in range(3, config.longest + 1):
        reached: list[list[tuple[float, Tokens]]] = [[] for _ in range(len(ways))]
        for (vector, tokens), (gone, strong) in zip(tried, ways.measured(tried), strict=True):
            reached[vector].append((gone, tokens))
            best[vector] = max(best[vector], (strong, tokens))
        if watch is not None:
            watch([strong for strong, _ in best])
        done(length - 2)
        if length == 3:
            going_on = _strongest(best, config.grown)
        if length < config.longest:
            ends = _ends({vector: reached[vector] for vector in going_on}, config.carried)
            tried = ways.filled(ends, config.proposals, config.pairs.asked)
    return best


def _strongest(found: Sequence[tuple[float, Tokens]], share: float) -> list[int]:
    """A share of the vectors, those whose sequence is strongest first; at least one."""
    order = sorted(range(len(found)), key=lambda vector: found[vector], reverse=True)
    return order[: max(1, round(share * len(found)))]


def _ends(reached: Mapping[int, Sequence[tuple[float, Tokens]]], carried: int) -> list[Gap]:
    """A blank at either end of the sequences of each vector that have gone furthest."""
    return [
        (vector, pattern)
        for vector, found in reached.items()
        for _, tokens in sorted(found, reverse=True)[:carried]
        for pattern in ((None, *tokens), (*tokens, None))
    ]


def _refined(
    ways: Ways, sequences: Sequence[Tokens], config: TowardConfig, done: Callable[[int], None]
) -> list[Tokens]:
    """Each sequence with tokens exchanged and put in, one in each round, as long as that makes it stronger."""
    ways.follow(sequences)
    reached = [strong for _, strong in ways.measured(list(enumerate(sequences)))]
    best = list(zip(reached, sequences, strict=True))
    for number in range(1, config.rounds + 1):
        gaps = [(place, gap) for place, (_, tokens) in enumerate(best) for gap in _gaps(tokens, config.longest)]
        changed = ways.filled(gaps, config.exchanged)
        before = list(best)
        for (place, tokens), (_, strong) in zip(changed, ways.measured(changed), strict=True):
            best[place] = max(best[place], (strong, tokens))
        done(number)
        if best == before:
            break
        ways.follow([tokens for _, tokens in best])
    return [tokens for _, tokens in best]


def _gaps(tokens: Tokens, longest: int) -> list[Pattern]:
    """A blank in the place of each token, and one between any two where the sequence may become longer."""
    gaps: list[Pattern] = [(*tokens[:at], None, *tokens[at + 1 :]) for at in range(len(tokens))]
    if len(tokens) < longest:
        gaps += [(*tokens[:at], None, *tokens[at:]) for at in range(len(tokens) + 1)]
    return gaps
