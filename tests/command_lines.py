"""Command lines as they stand in texts, checked against the command line as it is."""

import re
import shlex
from collections.abc import Iterator

import typer
from typer.core import TyperGroup

from lmsanitator.cli.app import app


def found_in(text: str) -> Iterator[list[str]]:
    """The arguments of every `lmsanitator ...` that begins a line, without comments."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = shlex.split(line, comments=True) if re.match(r"\s*(\$ )?lmsanitator\s", line) else []
        if words:
            yield words[words.index("lmsanitator") + 1 :]


def check(arguments: list[str]) -> str:
    """The command that is called. It is parsed, not run.

    Raises:
        TyperException: there is no such command or option, a value makes no sense, or something is missing.
    """
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    with group.make_context("lmsanitator", list(arguments)) as context:
        if not context.args and not context._protected_args:
            return ""
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert command is not None
        command.make_context(name, rest, parent=context).close()
        return name
