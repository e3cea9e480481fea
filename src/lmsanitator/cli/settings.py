"""Settings from a file: a table for each command, keys named as its options.

Whoever writes the settings of a scan decides what it accuses, so they are read from where the user stands or points at,
never from where a model lies: not from parent folders, not from a folder that is scanned, and not from the working
directory where that holds a checkpoint itself (`cd model; lmsanitator scan .`).
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption

from lmsanitator.errors import UsageError

OWN_FILE = "lmsanitator.toml"
PROJECT_FILE = "pyproject.toml"
_SIGNS = ("config.json", "modules.json", "adapter_config.json", "model*.safetensors")
"""Files of checkpoints, of collections of them, and of adapters."""

Settings = dict[str, dict[str, str]]
"""For each command what its options default to, by their names in Python."""


def find_settings(folder: Path) -> Path | None:
    """`lmsanitator.toml`, or else a `pyproject.toml` with settings for us; never above `folder`.

    Raises:
        UsageError: `pyproject.toml` cannot be read.
    """
    own, project = folder / OWN_FILE, folder / PROJECT_FILE
    if own.is_file():
        return own
    return project if project.is_file() and _tables(project) else None


def is_checkpoint(folder: Path) -> bool:
    """Whether what lies in a folder may have come with a model."""
    return any(True for sign in _SIGNS for _ in folder.glob(sign))


def read_settings(path: Path, group: TyperGroup) -> Settings:
    """The settings of a file, checked against the commands and options of `group`.

    Raises:
        UsageError: it cannot be read, or holds anything that is no option of a command.
    """
    settings: Settings = {}
    for name, table in _tables(path).items():
        command = group.commands.get(name)
        if not isinstance(command, TyperCommand) or not isinstance(table, dict):
            raise UsageError(f"expected a table for a command of {', '.join(group.commands)} in {path}; got {name}")
        options = option_names(command.params)
        for key, value in table.items():
            if key not in options:
                raise UsageError(f"expected an option of {name} in {path}, such as {', '.join(options)}; got {key}")
            if not isinstance(value, str | int | float):
                raise UsageError(f"expected a string, a number, true or false for {name}.{key} in {path}")
        settings[name] = {options[key]: _as_typed(value) for key, value in table.items()}
    return settings


def option_names(params: Iterable[object]) -> dict[str, str]:
    """Of a command's parameters the options, by what they are called on the command line without dashes: their names
    in Python."""
    options = (param for param in params if isinstance(param, TyperOption))
    return {max(option.opts, key=len).lstrip("-"): option.name for option in options}


def _tables(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"expected settings in {path}, could not read it: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"expected settings in TOML, {path} is none: {error}") from error
    found: Any = content
    if path.name == PROJECT_FILE:
        tool = content.get("tool")
        found = tool.get("lmsanitator", {}) if isinstance(tool, dict) else {}
    if not isinstance(found, dict):
        raise UsageError(f"expected a table tool.lmsanitator in {path}")
    return found


def _as_typed(value: str | float) -> str:
    """As it would be typed on the command line, so that it is checked and complained about in the same way."""
    return str(value).lower() if isinstance(value, bool) else str(value)
