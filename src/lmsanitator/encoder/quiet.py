"""Keep transformers and the libraries below it from printing where their messages are not for the user."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from transformers.utils import logging as transformers_logging

from lmsanitator.errors import CheckpointError, panicked


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers prints load reports and progress bars; what matters of them is raised as an error."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def refusing(expected: str) -> Iterator[None]:
    """Run a library on a stranger's data; whatever it raises becomes a CheckpointError that says what was `expected`.

    The libraries in Rust panic on some inputs: they print a report of their own and raise what is no Exception.
    """
    try:
        with quiet(), _muted():
            yield
    except CheckpointError:
        raise
    except Exception as error:  # they raise many kinds, some a bare Exception
        raise CheckpointError(f"expected {expected}: {one_line(error)}") from error
    except BaseException as error:
        if not panicked(error):
            raise
        raise CheckpointError(f"expected {expected}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The message of an error, in at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Send what is written to file descriptor 2 nowhere: a panic report does not go through `sys.stderr`."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no such descriptor: nothing to mute
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
