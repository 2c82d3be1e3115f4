"""A trained network in Python: the right checkpoint, the right classes, and one line for what cannot be read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning", reason="needs the extra 'lab'")

import anystride.lab
from anystride.lab.errors import UsageError

from .trained import CLASSES, images, save, untrained, use_fake_reader


def test_names_of_the_lab() -> None:
    assert {"load", "Trained"} <= set(dir(anystride.lab))
    with pytest.raises(AttributeError, match=r"anystride\.lab"):
        anystride.lab.unload  # noqa: B018


def test_what_is_loaded(run: Path) -> None:
    trained = anystride.lab.load(run)
    assert trained.classes == CLASSES
    assert (trained.kept, trained.record, trained.notes) == ("last epoch, 3", None, ())
    assert not trained.model.training
    assert trained.config.width == 2
    expected = untrained().eval()
    example = torch.rand(2, 3, 16, 16)
    assert torch.equal(trained.model(example), expected(example))


def test_the_best_epoch_comes_first(run: Path) -> None:
    other = untrained()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    save(other, run / "best.ckpt", epoch=0)
    trained = anystride.lab.load(str(run))
    assert trained.kept == "best epoch, 1"
    assert torch.equal(trained.model.classify.weight, other.model.classify.weight)
    assert anystride.lab.load(run / "last.ckpt").kept == "last epoch, 3"


def test_predictions_do_not_depend_on_their_company(run: Path, tmp_path: Path) -> None:
    trained = anystride.lab.load(run)
    paths = images(tmp_path, tuple(f"{number}.png" for number in range(9)))
    together = trained.predict(paths)
    for path, (label, probability, probabilities) in zip(paths, together, strict=True):
        logits = trained.model(trained.preprocess(path))[0]
        assert probabilities == pytest.approx(logits.double().softmax(0).tolist(), abs=1e-6)
        assert probability == max(probabilities)
        assert label == CLASSES[probabilities.index(probability)]
        assert sum(probabilities) == pytest.approx(1)
    assert trained.predict(str(paths[0]))[0].probabilities == pytest.approx(together[0].probabilities, abs=1e-6)


def test_the_logits_of_windows_are_averaged(run: Path, tmp_path: Path) -> None:
    trained = anystride.lab.load(run)
    (path,) = images(tmp_path, ("two.png",), value=200)
    inputs = trained.preprocess(path)
    assert len(inputs) == 2
    expected = trained.model(inputs).mean(dim=0).double().softmax(0).tolist()
    assert trained.predict([path, path])[1].probabilities == pytest.approx(expected, abs=1e-6)


def test_images_and_arrays_are_treated_as_files_are(run: Path, tmp_path: Path) -> None:
    trained = anystride.lab.load(run)
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    image.save(tmp_path / "a.png")
    for example in (image, values, torch.from_numpy(values)):
        assert torch.equal(trained.preprocess(example), trained.preprocess(tmp_path / "a.png"))
    turned = Image.fromarray(values)
    turned.getexif()[0x0112] = 6
    assert torch.equal(trained.preprocess(turned), trained.preprocess(Image.fromarray(np.rot90(values, -1))))
    for wrong in (7, np.zeros((2, 2, 2, 2)), None, "absent.png"):
        with pytest.raises(UsageError) as told:
            trained.preprocess(wrong)
        assert "\n" not in str(told.value)


def test_an_unreadable_file(run: Path, tmp_path: Path) -> None:
    trained = anystride.lab.load(run)
    (good,) = images(tmp_path, ("a.png",))
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"b\.png' is not a readable image"):
        trained.predict([good, tmp_path / "b.png"])
    outcomes = list(trained.attempts([tmp_path / "b.png", good, tmp_path / "b.png"]))
    assert [isinstance(outcome, UsageError) for outcome in outcomes] == [True, False, True]


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        ({}, "keeps no way from a file to an input"),
        ({"kind": "smell", "size": 16}, "files of the kind 'smell'"),
        ({"kind": ["image"], "size": 16}, "files of the kind"),
        ({"kind": "image"}, "cannot be read as the run's preprocessing says"),
        ({"kind": "image", "size": "16"}, "cannot be read as the run's preprocessing says"),
        ({"kind": "image", "size": -1}, "cannot be read as the run's preprocessing says"),
        ({"kind": "image", "size": 24}, r"gives inputs of shape \(3, 24, 24\), and its network learned from"),
    ],
)
def test_a_changed_preprocessing(
    preprocessing: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fake_reader(monkeypatch)
    save(untrained(preprocessing=preprocessing), tmp_path / "last.ckpt")
    (path,) = images(tmp_path, ("a.png",))
    with pytest.raises(UsageError, match=message) as told:
        anystride.lab.load(tmp_path).predict(path)
    assert "\n" not in str(told.value)


def test_weights_that_are_not_finite_and_a_damaged_record_are_told(run: Path) -> None:
    classifier = untrained()
    torch.nn.init.constant_(classifier.model.classify.weight, float("nan"))
    save(classifier, run / "last.ckpt")
    (run / "record.json").write_text("{")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trained = anystride.lab.load(run)
    assert ["not finite" in str(told[0].message), "not a readable record" in str(told[1].message)] == [True, True]
    assert trained.record is None


def test_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / ("x" * 5000), Path("a\0b")):
        with pytest.raises(UsageError, match=r"must hold last\.ckpt"):
            anystride.lab.load(path)


def test_a_good_run_warns_of_nothing(run: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        anystride.lab.load(run)
