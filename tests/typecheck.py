"""The type checker that tests put around every function of the package: beartype, without `Self`."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype knows `Self` only in classes it decorates whole; here it sees functions, so such hints are left out."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if "typing.Self" not in repr(hint)}
    return beartype(function)
