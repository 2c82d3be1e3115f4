"""Records: complete or absent, and checked when read."""

import json
from pathlib import Path

import pytest

from anystride.lab import record as records
from anystride.lab.errors import UsageError


def example() -> records.Record:
    empty = {list: [], dict: {}, int: 1, float: 0.5}
    return {name: empty.get(kind) for name, kind in records.FIELDS.items()} | {"schema": records.SCHEMA}  # type: ignore[call-overload]


def test_round_trip(tmp_path: Path) -> None:
    record = example() | {"accuracy": 0.125, "strides": [[2.0, 3.5]]}
    records.save(record, tmp_path / "new" / "record.json")
    assert records.load(tmp_path / "new" / "record.json") == record


@pytest.mark.parametrize("poison", [object(), float("nan")])
def test_a_failure_leaves_the_old_record_and_nothing_else(tmp_path: Path, poison: object) -> None:
    path = tmp_path / "record.json"
    records.save(example(), path)
    before = path.read_text()
    with pytest.raises((TypeError, ValueError)):
        records.save(example() | {"epochs": [1, 2, poison]}, path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable record"),
        ("[]", "not a record of schema"),
        ('{"schema": 999}', "not a record of schema"),
        (f'{{"schema": {records.SCHEMA}}}', "not a complete record, see command"),
        (json.dumps(example() | {"seconds": "long"}), "see seconds"),
        (json.dumps(example() | {"accuracy": 98.5}), "accuracy 98.5"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        records.load(path)


def test_a_missing_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a readable record"):
        records.load(tmp_path / "none.json")


def test_provenance_names_versions_and_hardware() -> None:
    here = records.provenance()
    assert here["versions"]["torch"]
    assert here["hardware"]["processor"]
    assert here["hardware"]["threads"] >= 1
    assert here.keys() <= records.FIELDS.keys()
