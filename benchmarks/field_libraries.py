"""Networks of libraries for benchmarks/field.py: random weights from configurations, as small as they can be."""

from examine import Network
from field_dense import DENSE_ROWS
from field_signals import SIGNAL_ROWS
from field_transformers import TRANSFORMERS_ROWS
from field_vision import VISION_ROWS

LIBRARIES: dict[str, Network] = {**VISION_ROWS, **DENSE_ROWS, **SIGNAL_ROWS, **TRANSFORMERS_ROWS}
