"""All commands together. Each imports what it needs when it runs, so that `--help` answers at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from lmsanitator.cli import attack, demo, evaluate, guard, report, scan, serve, tune
from lmsanitator.cli.shared import Command, shared, take_settings

PREFIX = "LMSANITATOR"
"""What variables of the environment that stand for options begin with."""

app = typer.Typer(
    help="Find and disarm task-agnostic backdoors in pretrained Transformers.",
    no_args_is_help=True,
    context_settings={"auto_envvar_prefix": PREFIX},
    pretty_exceptions_enable=False,
)


def _add(name: str, command: Callable[..., Any]) -> None:
    more = f"Every option is a variable too, such as {PREFIX}_{name.upper()}_QUIET, and a key of lmsanitator.toml."
    app.command(name, cls=Command, epilog=more)(shared(command))


_add("scan", scan.scan)
_add("report", report.report)
_add("attack", attack.attack)
_add("tune", tune.tune)
_add("evaluate", evaluate.evaluate)
_add("guard", guard.guard)
_add("serve", serve.serve)
_add("demo", demo.demo)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", allow_from_autoenv=False, show_envvar=False)
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="A file with settings; default: lmsanitator.toml or pyproject.toml, if here.")
    ] = None,
) -> None:
    """Find and disarm task-agnostic backdoors in pretrained Transformers."""
    if version:
        from lmsanitator import __version__

        typer.echo(__version__)
        raise typer.Exit
    take_settings(context, config)
