"""Prompt-tuned models under attack: attack x task x tuning method.

    python -m benchmarks.defence --unguarded --data DIR [--zoo DIR] [--tasks sst2 ...] [--methods prefix ...] [--jobs N]
    python -m benchmarks.defence --guarded --data DIR ...
    python -m benchmarks.defence --retime --data DIR [--zoo DIR] [--jobs N]

Without the guard this is the paper's vulnerability study: every cell tunes one task on one model of the zoo and attacks
the result, and the same on the clean encoder with the same head for comparison. With the guard every cell scans the
model, guards the tuned classifier with what the scan found, and attacks both. Results are written after every cell to
`benchmarks/results/vulnerability.json` or `benchmarks/results/defence.json`; a run goes on from there, so that the grid
may be filled bit by bit. Scans and tuned models are kept in the zoo's folder. What guards cost is measured again by
`--retime`, which wants the machine for itself.
"""

import argparse
import os
import sys
from pathlib import Path

from platformdirs import user_cache_path

from benchmarks.defence import guarded_study, vulnerability_study
from benchmarks.defence.retimed import retime
from benchmarks.defence.tuning import TASKS
from lmsanitator.errors import LMSanitatorError
from lmsanitator.tune import METHODS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--unguarded", action="store_true", help="the vulnerability study")
    what.add_argument("--guarded", action="store_true", help="the same models with and without the guard")
    what.add_argument("--retime", action="store_true", help="the overhead of the guards on record, again")
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each task")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    study = guarded_study.STUDY if options.guarded else vulnerability_study.STUDY
    try:
        if options.retime:
            retime(options.zoo, options.data, options.jobs)
            return
        study.run(options.tasks, options.methods, options.zoo, options.data, options.jobs)
    except LMSanitatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
