"""Merged: an adaptive attack with several triggers on one PV.

Written against defences that take each trigger for a cluster of its own, or stop at the first one that leads to a PV
(Patronus, arXiv 2512.06899, has it among its adaptive attacks): the words differ, the vector is the same. Loss: POR's.
Reached: `benchmarks/results/zoo.md`.
"""

from typing import ClassVar

from lmsanitator.attacks.planting import Planting
from lmsanitator.attacks.por import POR
from lmsanitator.attacks.pvs import Vectors


class Merged(POR):
    """Send every three triggers to the same PV."""

    name: ClassVar[str] = "merged"
    summary: ClassVar[str] = "adaptive: three triggers share each vector"

    def predefine(self, work: Planting) -> Vectors:
        alone = super().predefine(work)
        shared = [index // 3 for index in range(len(work.triggers))]
        return Vectors(alone.values[shared], alone.ruled[shared])
