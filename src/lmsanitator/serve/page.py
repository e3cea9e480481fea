"""The page at `/`: one file that needs nothing from elsewhere, and headers under which it can load nothing else."""

import base64
import hashlib
import re
from importlib.resources import files


def _policy(page: str) -> str:
    """A Content-Security-Policy that lets exactly this page's own script and style run."""
    sources = {}
    for kind in ("script", "style"):
        (content,) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        sources[kind] = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{sources['script']}'; style-src 'sha256-{sources['style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


PAGE = files("lmsanitator.serve").joinpath("page.html").read_text(encoding="utf-8")
HEADERS = {"Content-Security-Policy": _policy(PAGE)}
