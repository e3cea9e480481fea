"""What all commands have in common: how much they say, and where their settings come from."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from lmsanitator.cli import screen
from lmsanitator.cli.settings import find_settings, is_checkpoint, option_names, read_settings
from lmsanitator.errors import UsageError

_FILE = "lmsanitator.settings"
"""Where the context keeps the file that settings were read from."""
_SOURCES = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP", "DEFAULT")
"""Where an option's value may come from, the one that counts first."""

Quiet = Annotated[bool, typer.Option("--quiet/--no-quiet", "-q", help="No progress and no remarks, errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose/--no-verbose", "-v", help="A line on stderr for each step.")]


class Command(TyperCommand):
    """A command whose help does not repeat the variable of every option: they all follow one rule."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for param in self.params:
            if isinstance(param, TyperOption):
                param.show_envvar = False


def take_settings(context: typer.Context, named: Path | None) -> None:
    """Let a file fill in the options that neither the command line nor the environment gives.

    Args:
        named: the file; None looks for one in the working directory, unless a checkpoint lies there.

    Raises:
        UsageError: it cannot be read, or does not fit the commands.
    """
    path = named or find_settings(Path())
    if path is None or not isinstance(context.command, TyperGroup):
        return
    if named is None and is_checkpoint(Path()):
        said = f"{path} is not read: a checkpoint lies beside it, it may have come along (--config reads it)"
        screen.note(said, always=True)
        return
    context.default_map = dict(read_settings(path, context.command))
    context.meta[_FILE] = path


def explain(error: typer.TyperException) -> str:
    """What is wrong with the command line, and where it was said if it was not said there."""
    text = error.format_message()
    if not isinstance(error, typer.BadParameter) or error.ctx is None or error.param is None:
        return text
    name, context = str(error.param.name), cast("typer.Context", error.ctx)
    if _from_file(context, name):
        return f"{text} (in {context.meta[_FILE]})"
    variable = f"{context.auto_envvar_prefix}_{name.upper()}"
    return f"{text} (in {variable})" if _source(context, name) == "ENVIRONMENT" else text


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the options that all commands have."""

    @functools.wraps(command)
    def run(*, context: typer.Context, quiet: bool, verbose: bool, **options: Any) -> Any:
        if quiet and verbose:
            quiet, verbose = _nearer(context)
        screen.speak(quiet=quiet, verbose=verbose)
        _name_settings(context, quiet=quiet)
        return command(**options)

    own = inspect.signature(command, eval_str=True)
    more = (("context", typer.Context, inspect.Parameter.empty), ("quiet", Quiet, False), ("verbose", Verbose, False))
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, annotation, default in more
    ]
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    return run


def _name_settings(context: typer.Context, *, quiet: bool) -> None:
    """Say which settings a file has made. The file cannot silence that, only the user can."""
    names = option_names(context.command.params)
    filled = {key: context.lookup_default(name) for key, name in names.items() if _from_file(context, name)}
    if filled and (not quiet or "quiet" in filled):
        listed = ", ".join(f"{key} {value}" for key, value in filled.items())
        screen.note(f"settings of {context.meta[_FILE]}: {listed}", always=True)


def _nearer(context: typer.Context) -> tuple[bool, bool]:
    """Which of --quiet and --verbose holds where both are set: the one from nearer to the command line."""
    quiet, verbose = (_SOURCES.index(_source(context, name)) for name in ("quiet", "verbose"))
    if quiet == verbose:
        raise UsageError("expected --quiet or --verbose, got both")
    return quiet < verbose, verbose < quiet


def _from_file(context: typer.Context, name: str) -> bool:
    return _source(context, name) == "DEFAULT_MAP"


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return "DEFAULT" if source is None else source.name
