"""Well-known networks, small, written as people write them: what a tool that converts networks must cope with.

The families say what to expect of the output when strides move:

- classifier: the shape stays.
- dense: the output has the size of the plain network's output.
- enlarged: the same, and it is larger than the input.
- map, boxes, sequence: the output's size is that of an inner map, and moves with the strides.
- scalar: a loss.
"""

from examine import Network
from field_calls import CALLS
from field_classifiers import CLASSIFIERS
from field_decoders import DECODERS
from field_generators import GENERATORS
from field_pooling import POOLING
from field_residual import RESIDUAL
from field_segmentation import SEGMENTATION
from field_sequences import SEQUENCES
from field_spectrograms import SPECTROGRAMS
from field_stems import STEMS

_COLLECTIONS = (
    *(RESIDUAL, STEMS, CLASSIFIERS, POOLING),
    *(SEGMENTATION, DECODERS, GENERATORS),
    *(SEQUENCES, SPECTROGRAMS, CALLS),
)
NETWORKS: dict[str, Network] = {name: network for part in _COLLECTIONS for name, network in part.items()}
