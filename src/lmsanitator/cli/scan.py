"""lmsanitator scan"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmsanitator.cli.parameters import seed_option

if TYPE_CHECKING:
    from lmsanitator.detect import ScanConfig
    from lmsanitator.encoder import FrozenEncoder


class Format(StrEnum):
    console = "console"
    json = "json"


class EffortChoice(StrEnum):
    quick = "quick"
    standard = "standard"
    deep = "deep"


class FailOn(StrEnum):
    backdoored = "backdoored"
    inconclusive = "inconclusive"
    never = "never"


def scan(
    model: Annotated[str, typer.Argument(help="A checkpoint directory or a hub id (org/name or org/name@revision).")],
    site: Annotated[
        str, typer.Option(help="auto, or some of cls, pooler, mask, mean, tokens, last, by commas.")
    ] = "auto",
    effort: Annotated[EffortChoice, typer.Option(help="How much is tried.")] = EffortChoice.standard,
    corpus: Annotated[Path | None, typer.Option(help="Your own clean sentences: txt or jsonl.")] = None,
    level: Annotated[float, typer.Option(help="False-positive rate of the verdict.")] = 0.01,
    reference: Annotated[
        str | None, typer.Option(help="A trusted encoder to compare with, the base it claims to come from.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The encoder that MODEL, an adapter, was made for, if it is not where it says.")
    ] = None,
    seed: Annotated[int, seed_option("Same seed, same verdict.")] = 0,
    precision: Annotated[str, typer.Option(help="Of the searches: auto, fp32 or bf16.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Where there are no safetensors, open pytorch_model.bin, looked through."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from where a scan like this one was cut off, if there was one.")
    ] = False,
    format: Annotated[Format, typer.Option("--format", help="What goes to stdout or -o.")] = Format.console,  # noqa: A002
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write scan.json here, its PV bank beside it.")
    ] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Which verdicts give a non-zero exit code.")] = FailOn.inconclusive,
) -> int:
    """Say whether an encoder carries a task-agnostic backdoor, and which words fire it.

    Exit code: 0 clean, 1 backdoored, 2 could not scan, 3 inconclusive or unsupported, 4 usage.
    """
    from lmsanitator.cli import screen
    from lmsanitator.cli.options import PRECISIONS, check_place, choose, choose_device, parse_sites
    from lmsanitator.detect import ScanConfig
    from lmsanitator.detect import scan as run
    from lmsanitator.errors import UsageError
    from lmsanitator.report import render_scan
    from lmsanitator.report.plain import safe_json

    config = ScanConfig(
        sites=parse_sites(site),
        effort=effort.value,
        level=level,
        corpus=str(corpus) if corpus else None,
        seed=seed,
        precision=choose(precision, PRECISIONS, "precision"),
        device=choose_device(device),
        reference=reference,
    )
    if output == Path("-"):  # as `report` takes it: but a bank goes beside this one
        raise UsageError("expected a file to write scan.json to, got -: --format json writes it to stdout")
    if output is not None:
        check_place(output)
    with screen.progress() as progress:
        source = _opened(model, config, base, allow_pickle=allow_pickle) if allow_pickle or base is not None else model
        try:
            report = run(source, config, progress=progress, journals=journals(), resume=resume)
        except KeyboardInterrupt:
            screen.note("the same command with --resume goes on from here")
            raise
    more = base if base != report.model.source else None  # of a tuned prompt, the base itself is what was scanned
    report = report.with_config({"base": more, "allow_pickle": True if allow_pickle else None})
    try:
        if format is not Format.json:
            screen.out.print(render_scan(report))
        elif output is None:
            typer.echo(safe_json(report.model_dump(mode="json", by_alias=True)), nl=False)
    finally:  # neither is lost where the other fails: nobody may be reading, and the disk may be full
        if output is not None:
            report.save(output)
    return exit_code(report.verdict, fail_on)


def _opened(model: str, config: "ScanConfig", base: str | None, *, allow_pickle: bool) -> "FrozenEncoder":
    """The encoder, opened before the scan does so by itself: pickles, and an adapter's base that lies elsewhere, are
    nothing that a scan asks for."""
    from lmsanitator.encoder import FrozenEncoder

    return FrozenEncoder.open(
        model, base=base, precision=config.precision, device=config.device, allow_pickle=allow_pickle
    )


def journals() -> Path:
    """Where scans keep what they have found so far."""
    from platformdirs import user_cache_path

    return user_cache_path("lmsanitator") / "scans"


def exit_code(verdict: str, fail_on: FailOn) -> int:
    """The exit code of a verdict under `--fail-on`."""
    failing = {
        FailOn.never: {},
        FailOn.backdoored: {"backdoored": 1},
        FailOn.inconclusive: {"backdoored": 1, "inconclusive": 3},
    }[fail_on]
    return failing.get(verdict, 0)
