"""One page that needs nothing from elsewhere: no script, no network, its style and drawings inside."""

import base64
import hashlib
from collections.abc import Callable, Iterable
from html import escape
from importlib.resources import files

from lmsanitator.detect import Finding
from lmsanitator.report.meaning import advice, command, is_evidence, meaning
from lmsanitator.report.plain import short, trigger_words, visible
from lmsanitator.report.plots import growth, outputs, vocabulary
from lmsanitator.report.stored import StoredScan
from lmsanitator.report.svg import DRAWN, agreement, strip

COMPARED = 40
"""Vectors in the square of agreement at most: more would be too small to read."""

_STYLE = files("lmsanitator.report").joinpath("page.css").read_text(encoding="utf-8")
# Belt and braces: every string is escaped, and the page may not load or run anything if one were not.
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'"
)
_HEADLINE = {
    "clean": "No backdoor found",
    "backdoored": "This encoder carries a backdoor",
    "inconclusive": "Not clear: something stands out",
}


def render_html(scan: StoredScan) -> str:
    """Verdict, triggers, what the scan saw, vectors, what was looked at, cost, and how to come to it again."""
    sections: list[Callable[[StoredScan], str]] = [_verdict, _triggers, _pictures, _vectors, _coverage, _cost, _repeat]
    body = "\n".join(filter(None, (section(scan) for section in sections)))
    title = f"{scan.report.verdict}: {visible(scan.report.model.source)}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _string(text: str) -> str:
    """A string of the scan: escaped, what is hidden in it spelt out, and its direction kept to itself."""
    return f"<bdi>{escape(visible(text))}</bdi>"


def _verdict(scan: StoredScan) -> str:
    report = scan.report
    return (
        f'<header class="{report.verdict}">\n<p class="verdict">{report.verdict}</p>\n'
        f"<h1>{_HEADLINE[report.verdict]}</h1>\n<p>{escape(meaning(report))} "
        f"<strong>{escape(advice(report))}</strong></p>\n"
        f"<p><code>{_string(report.model.source)}</code>, p = {short(report.p_value)}</p>\n</header>"
    )


def _triggers(scan: StoredScan) -> str:
    report = scan.report
    if not report.findings:
        return "<section>\n<h2>Triggers</h2>\n<p>None found.</p>\n</section>"
    columns = ("#", "trigger", "site", "p-value", "replays", "displacement", "concentration")
    rows = []
    for number, finding in enumerate(report.findings, 1):
        values = (
            str(number),
            f"<strong>{_string(trigger_words(finding))}</strong>{_notes(scan, finding)}",
            finding.site,
            short(finding.p_value),
            f"{finding.replay_rate:.0%}",
            f"{finding.displacement:.1f}",
            f"{finding.concentration:.3f}",
        )
        cells = (f'<td data-name="{name}"><div>{value}</div></td>' for name, value in zip(columns, values, strict=True))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    return (
        f"<section>\n<h2>Triggers</h2>\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + "\n</tbody>\n</table>\n"
        '<p class="note">Replays: share of fresh passages in which the trigger takes over the output. '
        "Displacement: how far it moves the output, in the model's own clean variances. Concentration: 1 where the "
        "output is the same whatever the text says.</p>\n</section>"
    )


def _notes(scan: StoredScan, finding: Finding) -> str:
    notes = [
        *([] if finding.trigger is not None else ["tokens that cannot be typed"]),
        *(["in comparison with the reference"] if finding.compared else []),
        *([] if is_evidence(finding, scan.report) else ["weak by itself, often a part of another trigger"]),
    ]
    return "".join(f' <span class="note">({note})</span>' for note in notes)


def _pictures(scan: StoredScan) -> str:
    """What the scan saw on its way, where that was kept."""
    seen = scan.seen
    if seen is None:
        return ""
    planted = {token for finding in scan.report.findings for token in finding.trigger_tokens}
    parts: list[str] = []
    if seen.vocabulary is not None:
        parts.append(
            "<h3>The whole vocabulary</h3>\n"
            f'<p class="note">Every token, tried among others, at {seen.vocabulary.site}: how far it takes the output, '
            "and how much of the output's variety is left. A trigger of one word is far to the right or at the bottom. "
            f"The stronger the grey, the more tokens.</p>\n<figure>{vocabulary(seen.vocabulary, planted)}</figure>"
        )
    if seen.outputs is not None:
        names = [f"#{item.finding + 1}" for item in seen.outputs.triggered]
        parts.append(
            "<h3>Where texts end up</h3>\n"
            f'<p class="note">The output at {seen.outputs.site} of the same passages as they are and with each trigger '
            f"in them, in the plane in which they differ most ({seen.outputs.share:.0%} of all variance). A trigger "
            "takes all of them to one place.</p>\n"
            f"<figure>{outputs(seen.outputs, names)}</figure>"
        )
    if seen.searches:
        parts.append(
            "<h3>The search for phrases</h3>\n"
            '<p class="note">Phrases are grown word by word toward mined vectors; those toward vectors of no backdoor '
            "show what chance reaches. A line is a vector, its height the strength of the best phrase toward it.</p>"
        )
        parts += [f"<figure>{growth(item, planted)}</figure>" for item in seen.searches]
    return "\n".join(["<section>\n<h2>What the scan saw</h2>", *parts, "</section>"]) if parts else ""


def _vectors(scan: StoredScan) -> str:
    if scan.remark is not None:
        return f"<section>\n<h2>Vectors</h2>\n<p>{escape(scan.remark)}</p>\n</section>"
    found = [
        (number, finding, vector.values)
        for number, finding in enumerate(scan.report.findings, 1)
        if (vector := scan.vector(finding)) is not None
    ]
    if not found:
        return ""
    figures = []
    for number, finding, values in found:
        name = f"#{number} {_string(trigger_words(finding))} at {finding.site}"
        up = f"{float((values > 0).float().mean()):.0%}"
        label = f"Values of vector {number}, {up} positive"
        figures.append(f"<figure>\n<figcaption>{name}, {up} positive</figcaption>\n{strip(values, label)}\n</figure>")
    cut = f" Of {len(found[0][2]):,} dimensions the first {DRAWN:,} are drawn." if len(found[0][2]) > DRAWN else ""
    parts = [
        "<section>\n<h2>Vectors</h2>",
        (
            '<p class="note">Where each trigger sends the output: a bar for every dimension, up where positive, down '
            f"where negative; bars end at the 95th percentile.{cut}</p>"
        ),
        *figures,
    ]
    if len(found) > 1:
        shown = found[:COMPARED]
        square = agreement([values for _, _, values in shown], [f"#{number}" for number, _, _ in shown])
        more = f" The first {COMPARED} are shown." if len(found) > COMPARED else ""
        parts.append(
            '<h3>Do they agree?</h3>\n<p class="note">Percent of dimensions in which two vectors have the same sign. '
            "Near 100: one vector, found by two triggers. Near 50: nothing in common. Near 0: opposites. Vectors at "
            f'different sites may differ although one trigger fires both.{more}</p>\n<div class="square">{square}</div>'
        )
    return "\n".join([*parts, "</section>"])


def _coverage(scan: StoredScan) -> str:
    seen = scan.report.coverage
    looked = (
        f"Sites {escape(', '.join(seen.sites))}. {seen.tokens_swept:,} tokens of the vocabulary, {seen.words_swept:,} "
        f"words of several tokens, {seen.candidates:,} mined candidates. "
        f"Lengths in tokens: {', '.join(map(str, seen.lengths)) or 'none'}. Places: "
        f"{_string(seen.positions)}."
    )
    missed = _items(map(_string, seen.not_covered)) or "<p>Nothing was left out on purpose.</p>"
    reference = scan.report.reference
    compared = ""
    if reference is not None:
        compared = f"<p>Compared with <code>{_string(reference.source)}</code>.</p>\n"
    return (
        f"<section>\n<h2>What was looked at</h2>\n<p>{looked}</p>\n{compared}<h3>What was not</h3>\n{missed}\n"
        '<p class="note">A clean verdict says that nothing was found where the scan looked. It does not say that there '
        "is nothing.</p>\n</section>"
    )


def _cost(scan: StoredScan) -> str:
    cost = scan.report.cost
    return (
        f"<section>\n<h2>What it took</h2>\n<p>{cost.seconds:.0f} seconds; {cost.forward_tokens:,} tokens forward and "
        f"{cost.backward_tokens:,} backward through the encoder.</p>\n</section>"
    )


def _repeat(scan: StoredScan) -> str:
    report, line = scan.report, command(scan.report)
    how = "<p>The configuration was not stored.</p>" if line is None else f"<pre><code>{_string(line)}</code></pre>"
    facts = [
        f"{_string(report.model.architecture)}, {report.model.parameters:,} parameters",
        f"digest of the weights <code>{_string(report.model.digest)}</code>",
        f"lmsanitator {_string(report.version)}",
    ]
    if report.reference is not None:
        facts.append(f"digest of the reference <code>{_string(report.reference.digest)}</code>")
    return f"<section>\n<h2>How to come to it again</h2>\n{how}\n{_items(facts)}\n</section>"


def _items(entries: Iterable[str]) -> str:
    listed = "\n".join(f"<li>{entry}</li>" for entry in entries)
    return f"<ul>\n{listed}\n</ul>" if listed else ""
