"""Sees what a process does while a checkpoint is opened: an audit hook, which no library can get around from Python."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FORBIDDEN = (
    "socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system", "os.exec", "os.fork",
    "os.posix_spawn", "os.spawn", "pickle.find_class", "ctypes.dlopen", "webbrowser.open", "urllib.Request",
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
)  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND
_ALLOWED = ("/dev/null", "__pycache__", "libc.so.6")  # muting, imports, and the allocator that the command line sets


class Watch:
    """What happened in the process while it was watched, one line each."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.folder: Path | None = None
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def on(self, folder: Path) -> Iterator[None]:
        """Watch; files in `folder` may be read, those beside it may not."""
        self.seen.clear()
        self.folder = folder
        try:
            yield
        finally:
            self.folder = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in _FORBIDDEN:
            self._note(event, repr(arguments))
        elif event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes):
                self._check_open(os.fsdecode(path), flags if isinstance(flags, int) else 0)
        elif event == "exec" and self._is_near(str(getattr(arguments[0], "co_filename", ""))):
            self._note(event, arguments[0].co_filename)

    def _check_open(self, path: str, flags: int) -> None:
        if flags & _WRITES:
            self._note("write", path)
        elif self._is_near(path) and not Path(path).is_relative_to(str(self.folder)):
            self._note("read", path)

    def _is_near(self, path: str) -> bool:
        return self.folder is not None and Path(path).is_relative_to(self.folder.parent)

    def _note(self, event: str, what: str) -> None:
        if not any(allowed in what for allowed in _ALLOWED):
            self.seen.append(f"{event}: {what[:200]}")
