"""The JSON Schema of scan.json. `python -m lmsanitator.report.schema` writes it anew (`make schema`)."""

import json
from pathlib import Path

from lmsanitator.detect import ScanReport
from lmsanitator.output import write_file

SCHEMA_FILE = Path(__file__).with_name("scan.schema.json")


def scan_schema() -> str:
    """The schema of what `ScanReport` accepts, as text."""
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ScanReport.model_json_schema()}
    return json.dumps(described, indent=2) + "\n"


if __name__ == "__main__":
    write_file(SCHEMA_FILE, scan_schema())
