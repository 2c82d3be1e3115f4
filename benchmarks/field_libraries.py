"""Networks of libraries for benchmarks/field.py: random weights from configurations, as small as they can be."""

from examine import Network

LIBRARIES: dict[str, Network] = {}
