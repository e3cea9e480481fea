"""Which attention kernel torch takes, chosen for all threads together."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

from torch.nn.attention import SDPBackend, sdpa_kernel

_lock = Lock()
_users = 0
_chosen = ExitStack()


@contextmanager
def unfused() -> Iterator[None]:
    """Attention by plain matrix products. torch keeps its choice of kernel in one place for all threads, so the first
    that needs this sets it and the last that does takes it back."""
    global _users
    with _lock:
        if not _users:
            _chosen.enter_context(sdpa_kernel(SDPBackend.MATH))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _chosen.close()
