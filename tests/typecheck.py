"""The type checker that tests put around every function of the package: beartype, without `Self`."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_CONFIG = BeartypeConf(is_pep484_tower=True)  # an int is a float, as it is to mypy


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype knows `Self` only in classes it decorates whole; here it sees functions, so such hints are left out."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if "typing.Self" not in repr(hint)}
    return beartype(conf=_CONFIG)(function)
