"""Every error this package raises on purpose, as one small tree.

Each message is one line that says what was expected and what came. The command line turns the class
into an exit code (`exit_code`) and prints the message alone; anything outside this tree is a bug.
"""


class LMSanitatorError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns for it."""

    exit_code = 2


class CheckpointError(LMSanitatorError):
    """A checkpoint that cannot be opened safely: missing, truncated, pickled, inconsistent or not finite."""


class CorpusError(LMSanitatorError):
    """Text or task data that cannot be used: missing, empty, badly encoded or of the wrong shape."""


class BankError(LMSanitatorError):
    """A PV bank or scan report that cannot be read, or that belongs to another encoder."""


class AttackError(LMSanitatorError):
    """An attack that cannot be run as asked, or that did not reach its bar."""


class TuningError(LMSanitatorError):
    """A tuning method or tuned model that cannot be used with the encoder at hand."""


class OutputError(LMSanitatorError):
    """A place that results cannot be written to."""


class UsageError(LMSanitatorError):
    """An option whose value makes no sense."""

    exit_code = 4


class UnsupportedError(LMSanitatorError):
    """A sound checkpoint that this version has no way to judge, for instance a site the architecture lacks."""

    exit_code = 3


def panicked(error: BaseException) -> bool:
    """Whether this is a panic of a library in Rust, which hostile files bring about; its class cannot be imported, and
    it is no Exception."""
    return type(error).__name__ == "PanicException"
