"""Networks of libraries for benchmarks/field.py: random weights from configurations, as small as they can be."""

from examine import Network
from field_vision import VISION_ROWS

LIBRARIES: dict[str, Network] = {**VISION_ROWS}
