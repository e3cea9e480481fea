"""Open an encoder safely and read its outputs."""

from lmsanitator.encoder.difference import Difference, check_comparable
from lmsanitator.encoder.frozen import FrozenEncoder, TokenMeter
from lmsanitator.encoder.loading import Checkpoint, open_checkpoint
from lmsanitator.encoder.precision import Precision
from lmsanitator.encoder.sites import SITES, Site, one_vector, read_site
from lmsanitator.encoder.spelling import behind_a_word, pieces, roles, typeable
from lmsanitator.encoder.workers import side_by_side

__all__ = [
    "SITES",
    "Checkpoint",
    "Difference",
    "FrozenEncoder",
    "Precision",
    "Site",
    "TokenMeter",
    "behind_a_word",
    "check_comparable",
    "one_vector",
    "open_checkpoint",
    "pieces",
    "read_site",
    "roles",
    "side_by_side",
    "typeable",
]
