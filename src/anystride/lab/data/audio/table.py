"""The sizes of Table A.1, and what is said when a data set's own differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from anystride.lab.data.source import Source

AnySource = TypeVar("AnySource", bound=Source)


@dataclass(frozen=True)
class Published:
    """How many training and test examples Table A.1 counts."""

    train: int
    test: int

    def compare(self, source: AnySource) -> AnySource:
        """The source itself; its `counts` say so if they are not those of Table A.1."""
        if (source.train_length, source.test_length) != (self.train, self.test):
            source.counts += f" (Table A.1: {self.train:,} and {self.test:,})"
        return source
