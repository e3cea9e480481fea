"""The type checker that tests put around every function of the package: beartype, without `Self`."""

from collections.abc import Callable
from typing import Any

import typer
from beartype import BeartypeConf, beartype

_CONFIG = BeartypeConf(is_pep484_tower=True)  # an int is a float, as it is to mypy


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype knows `Self` only in classes it decorates whole; here it sees functions, so such hints are left out.

    typer hands over an object of its Context's base where Context is asked for.
    """
    hints = {name: hint for name, hint in function.__annotations__.items() if "typing.Self" not in repr(hint)}
    function.__annotations__ = {name: _handed_over(hint) for name, hint in hints.items()}
    return beartype(conf=_CONFIG)(function)


def _handed_over(hint: Any) -> Any:
    return typer.Context.__base__ if hint is typer.Context else hint
