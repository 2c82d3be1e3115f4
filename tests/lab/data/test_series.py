"""Series of strangers: folders and tables of npy, npz and csv; what is no series is named, all of it at once."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anystride.lab.cli import main
from anystride.lab.data.catalogue import open_source
from anystride.lab.data.series import SHIFT, SeriesSource, read_inputs, series_folder, shifted
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig
from anystride.lab.run.folder import RECORD
from anystride.lab.run.record import load
from anystride.lab.trained import load as load_trained

LENGTH = 64


def sine(frequency: float, seed: int, channels: int = 1, length: int = LENGTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(length) / LENGTH
    phase = rng.uniform(0, 2 * np.pi, (channels, 1))
    return np.sin(2 * np.pi * frequency * time + phase) + 0.2 * rng.normal(size=(channels, length)) + 5


def as_npy(path: Path, values: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), values)


def as_npz(path: Path, values: np.ndarray) -> None:
    np.savez(path.with_suffix(".npz"), values)


def as_csv(path: Path, values: np.ndarray) -> None:
    np.savetxt(path.with_suffix(".csv"), values.T, delimiter=";", header=";".join("abc"[: len(values)]), comments="")


WRITERS = [as_npy, as_npz, as_csv]


def folder_of(root: Path, write: Callable[[Path, np.ndarray], None] = as_npy, each: int = 12, **more: Any) -> Path:
    for name, frequency in (("slow", 3), ("fast", 9)):
        (root / name).mkdir(parents=True)
        for number in range(each):
            write(root / name / str(number), sine(frequency, number + 100 * frequency, **more))
    return root


def table_of(path: Path, each: int = 12, label: str = "label", **more: Any) -> Path:
    lines = [",".join([*(f"t{n}" for n in range(LENGTH)), label])]
    for name, frequency in (("slow", 3), ("fast", 9)):
        lines += [
            ",".join([*(f"{value:.6g}" for value in sine(frequency, number, **more)[0]), name])
            for number in range(each)
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def opened(path: Path, **changes: Any) -> SeriesSource:
    source = series_folder(RunConfig(data=str(path), **changes))
    assert isinstance(source, SeriesSource)
    return source


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_of_any_kind_holds_the_same_series(tmp_path: Path, write: Any) -> None:
    source = opened(folder_of(tmp_path / "data", write, channels=2))
    assert source.heads == {"class": ("fast", "slow")}
    assert (source.train_length, source.test_length) == (19, 5)
    assert source.example.shape == (1, 2, LENGTH)
    inputs, _ = source.plain_batch(torch.arange(19))
    assert inputs.dtype == torch.float32
    assert torch.allclose(inputs.mean((0, 2)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(inputs.std((0, 2), unbiased=False), torch.ones(2), atol=1e-5)
    again = opened(folder_of(tmp_path / "npy", as_npy, channels=2))
    assert torch.allclose(inputs, again.plain_batch(torch.arange(19))[0], atol=1e-5)


def test_a_table_has_a_series_per_row(tmp_path: Path) -> None:
    source = opened(table_of(tmp_path / "all.csv", label="kind"), label_column="kind")
    assert (source.train_length, source.test_length) == (19, 5)
    assert source.example.shape == (1, 1, LENGTH)
    x = np.stack([sine(frequency, number)[0] for frequency in (3, 9) for number in range(12)])
    np.savez(tmp_path / "all.npz", x=x, y=np.repeat(["slow", "fast"], 12))
    other = opened(tmp_path / "all.npz")
    assert torch.allclose(source.test_batch(torch.arange(5))[0], other.test_batch(torch.arange(5))[0], atol=1e-4)


def test_parts_of_a_folder_and_tables_of_parts(tmp_path: Path) -> None:
    for part, each in (("train", 8), ("test", 4), ("val", 3)):
        folder_of(tmp_path / "files" / part, each=each)
        (tmp_path / "tables").mkdir(exist_ok=True)
        table_of(tmp_path / "tables" / f"{part}.csv", each=each)
    for name in ("files", "tables"):
        source = opened(tmp_path / name)
        assert (source.train_length, source.test_length, source.validation_length) == (16, 8, 6)
        assert source.validation_batch(torch.arange(6))[1].bincount().tolist() == [3, 3]


def test_names_may_hold_the_class(tmp_path: Path) -> None:
    for name, frequency in (("slow", 3), ("fast", 9)):
        for number in range(5):
            as_npy(tmp_path / f"{name}_{number}", sine(frequency, number))
    assert opened(tmp_path, label_pattern="([a-z]+)_").heads == {"class": ("fast", "slow")}


def test_lengths_follow_the_median_and_are_told(tmp_path: Path) -> None:
    folder_of(tmp_path)
    as_npy(tmp_path / "slow" / "long", sine(3, 1, length=100))
    as_npy(tmp_path / "fast" / "short", sine(9, 1, length=40))
    source = opened(tmp_path)
    assert source.example.shape[2] == LENGTH
    assert "1 channel of 64 samples (the median: 1 longer ones are cut, 1 shorter ones filled up)" in source.counts
    short = read_inputs(tmp_path / "fast" / "short.npy", source.preprocessing)
    assert short.shape == (1, 1, LENGTH)
    assert short[0, 0, 40:].abs().max() == 0


def test_a_series_is_shifted_in_training_unless_it_is_not_to_be(tmp_path: Path) -> None:
    folder_of(tmp_path)
    rows = torch.arange(10)
    plain = opened(tmp_path).plain_batch(rows)[0]
    moved = opened(tmp_path).train_batch(rows, torch.Generator().manual_seed(0))[0]
    assert not torch.equal(moved, plain)
    assert torch.equal(moved, shifted(plain, torch.Generator().manual_seed(0)))
    ramp = shifted(torch.arange(80.0).expand(50, 1, 80), torch.Generator().manual_seed(1))
    assert float((ramp - torch.arange(80.0)).abs().max()) == SHIFT * 80
    assert torch.equal(opened(tmp_path, augment="none").train_batch(rows, torch.Generator())[0], plain)


def test_a_file_is_read_as_the_test_examples_are(tmp_path: Path) -> None:
    source = opened(folder_of(tmp_path))
    seen = source.test_batch(torch.arange(5))[0]
    files = torch.cat([read_inputs(path, source.preprocessing) for path in sorted(tmp_path.rglob("*.npy"))])
    assert all(any(torch.equal(one, other) for other in files) for one in seen)


def test_a_row_is_read_as_the_rows_of_the_table(tmp_path: Path) -> None:
    source = opened(table_of(tmp_path / "all.csv"))
    lines = (tmp_path / "all.csv").read_text().splitlines()
    (tmp_path / "one.csv").write_text("\n".join([lines[0], lines[1]]))
    (tmp_path / "bare.csv").write_text(lines[1].rpartition(",")[0])
    one, bare = (read_inputs(tmp_path / f"{name}.csv", source.preprocessing) for name in ("one", "bare"))
    assert torch.equal(one, bare)
    assert one.shape == (1, 1, LENGTH)
    with pytest.raises(UsageError, match="it holds 24 series, it must hold one"):
        read_inputs(tmp_path / "all.csv", source.preprocessing)


def broken_npy(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "<f8"})
    return file.getvalue()


BAD: dict[str, tuple[bytes | np.ndarray, str]] = {
    "nan.npy": (np.array([1.0, np.nan, 2]), "NaN or infinite"),
    "strings.npy": (np.array(["a", "b"]), "strings, not numbers"),
    "objects.npy": (np.array([{"a": 1}], dtype=object), "Python objects, which are not unpickled"),
    "cube.npy": (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
    "nothing.npy": (np.zeros(0), "it is empty"),
    "huge.npy": (broken_npy((10**15,)), "for which the file is too short"),
    "negative.npy": (broken_npy((-5,)), "for which the file is too short"),
    "text.npy": (b"no numbers here", ""),
    "empty.npy": (b"", ""),
    "words.csv": (b"a,b\n1,2\n3,four\n", "line 3: 'four' is not a number"),
    "ragged.csv": (b"1,2\n3\n", "line 2 has 1 cells"),
    "latin.csv": ("é,1\n".encode("latin-1"), "not UTF-8"),
    "zip.npz": (b"PK\x03\x04 no archive", ""),
    "channels.npy": (np.zeros((3, 50)), "has 3 channels, most have 1"),
}


def test_all_that_is_no_series_is_named_at_once_or_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path)
    for name, (content, _) in BAD.items():
        if isinstance(content, bytes):
            (tmp_path / "slow" / name).write_bytes(content)
        else:
            np.save(tmp_path / "slow" / name, content, allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "slow" / "two.npz", "w") as archive:
        for name in "ab":
            archive.writestr(f"{name}.npy", broken_npy((0,)))
    with pytest.raises(UsageError) as refusal:
        opened(tmp_path)
    text = str(refusal.value)
    assert "holds 15 files that are not readable series" in text
    for name, (_, reason) in BAD.items():
        line = next(line for line in text.splitlines() if f"/{name}'" in line)
        assert re.search(reason, line), line
    assert "it must hold one array and holds 2: a, b" in text
    source = opened(tmp_path, skip_bad=True)
    assert source.train_length + source.test_length == 24
    assert "15 unreadable left out" in source.counts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,b\n1,2\n", "--label-column must be one of the columns that the first line of"),
        ("label,t0,t1\nx,1,2\nx,3,4\n", "at least two classes"),
        ("label,t0,t1\nx,1,2\nx,3,4\ny,1,2\n", "at least two series per class"),
        ("label,t0,t1\nx,1,2\nx,3\ny,1,2\n,5,6\n", "2 files that are not readable series"),
        ("", "--label-column must be one of the columns"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "all.csv").write_text(content)
    with pytest.raises(UsageError) as refusal:
        opened(tmp_path / "all.csv")
    assert expected in str(refusal.value)


def test_an_npz_without_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", z=np.zeros((4, 8)))
    with pytest.raises(UsageError, match="must hold the arrays 'x' and 'label' or 'y', and holds z"):
        opened(tmp_path / "all.npz")


def test_a_network_learns_from_a_folder_is_exported_and_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_of(tmp_path / "data", each=40)
    out = tmp_path / "out"
    arguments = ["train", "--data", str(data), "--out", str(out), "--width", "4", "--epochs", "6", "--batch-size", "8"]
    assert main(arguments) == 0
    record = load(out / RECORD)
    assert record.config.model == "series"
    assert record.accuracy > 0.9
    assert record.map_sizes[0] == [LENGTH]
    assert record.strides != record.start_strides
    assert {"strides.png", "windows.png", "examples.png"} <= {path.name for path in out.iterdir()}
    assert main(["export", str(out), "--to", "onnx"]) == 0
    trained = load_trained(out)
    assert trained.predict(sorted((data / "fast").iterdir())[:5])[0].label == "fast"
    assert main(["predict", str(out), str(data / "slow")]) == 0
    assert main(["evaluate", str(out), str(data)]) == 0
    printed = capsys.readouterr()
    assert "could not be drawn" not in printed.out
    assert printed.err == ""
    assert open_source(record.config).counts.startswith("64 training and 16 test series, 2 classes, 1 channel of 64")
