"""A guarded classifier as a service: HTTP, dynamic batching, limits, metrics. Needs the extra `serve`.

Fails closed: an input whose check failed is answered with an error, never with a label.
"""

from lmsanitator.serve.app import create_app
from lmsanitator.serve.config import ServeConfig, Served
from lmsanitator.serve.server import run

__all__ = ["ServeConfig", "Served", "create_app", "run"]
