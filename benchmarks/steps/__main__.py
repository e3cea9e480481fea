"""`python -m benchmarks.steps [--draw]`"""

import argparse
import json
from pathlib import Path

from benchmarks.record import RESULTS
from benchmarks.steps.drawn import PICTURES

RESULT = RESULTS / "steps.json"
PLACE = Path(__file__).parents[2] / "docs" / "steps"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps")
    parser.add_argument("--draw", action="store_true", help="draw what was recorded; scan nothing")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.draw:
        from benchmarks.steps.watched import watch

        RESULT.write_text(json.dumps(watch(options.seed), separators=(",", ":")) + "\n", encoding="utf-8")
    seen = json.loads(RESULT.read_text(encoding="utf-8"))
    PLACE.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (PLACE / f"{name}.svg").write_text(draw(seen), encoding="utf-8")
        print(f"{name}.svg: drawn")


if __name__ == "__main__":
    main()
