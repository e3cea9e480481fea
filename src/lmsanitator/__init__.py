"""lmsanitator: find and disarm task-agnostic backdoors in pretrained Transformers."""

__version__ = "0.1.0"
