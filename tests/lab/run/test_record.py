"""Records: complete or absent, and checked when read."""

import json
from pathlib import Path

import pytest

from anystride.lab.errors import UsageError
from anystride.lab.record import provenance
from anystride.lab.run.record import JSON_TYPES, SCHEMA, load, save

from ..records import fabricated

RESULTS = Path(__file__).parents[3] / "results"


def example(**changes: object) -> dict[str, object]:
    return {**fabricated().to_json(), **changes}


def test_round_trip(tmp_path: Path) -> None:
    record = fabricated(accuracy=0.125, strides=[[2.0, 3.5]] * 3, loss=None)
    save(record, tmp_path / "new" / "record.json")
    assert load(tmp_path / "new" / "record.json") == record


def test_a_file_lacks_what_a_record_lacks() -> None:
    assert not {"top5", "accuracies", "devices", "examples"} & fabricated(top5=None).to_json().keys()
    assert fabricated(loss=None).to_json()["loss"] is None


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("record.json")), ids=lambda path: path.parent.name)
def test_published_records_are_read_and_written_again(path: Path) -> None:
    assert load(path).to_json() == json.loads(path.read_text())


def test_an_entry_that_is_no_field_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(example(remark="from another version")))
    assert load(path) == fabricated()


@pytest.mark.parametrize("poison", [object(), float("nan")])
def test_a_failure_leaves_the_old_record_and_nothing_else(tmp_path: Path, poison: object) -> None:
    path = tmp_path / "record.json"
    save(fabricated(), path)
    before = path.read_text()
    with pytest.raises((TypeError, ValueError)):
        save(fabricated(epochs=[1, 2, poison]), path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable record"),
        ("[]", "not a record of schema"),
        ('{"schema": 999}', "not a record of schema"),
        (f'{{"schema": {SCHEMA}}}', "not a complete record, see command"),
        (json.dumps(example(seconds="long")), "see seconds"),
        (json.dumps(example(accuracy=98.5)), r"accuracy must be in \[0, 1\], got 98.5"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load(path)


def test_a_missing_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a readable record"):
        load(tmp_path / "none.json")


def test_provenance_names_versions_and_hardware() -> None:
    here = provenance()
    assert here["versions"]["torch"]
    assert here["hardware"]["processor"]
    assert here["hardware"]["threads"] >= 1
    assert here.keys() <= JSON_TYPES.keys()
