"""The reader of images against what a viewer shows: every mode, orientation, transparency, depth, and every fault."""

import json
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.data import images
from anystride.lab.data.images import ImageFileError, describe, displayed, read_image, read_inputs, usual_size, view
from anystride.lab.data.tree import Files, Tree
from anystride.lab.errors import UsageError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def four_corners() -> np.ndarray:
    """(8, 12, 3): red, green above blue, black; wider than high, no symmetry."""
    values = np.zeros((8, 12, 3), dtype=np.uint8)
    values[:4, :6], values[:4, 6:], values[4:, :6] = RED, GREEN, BLUE
    return values


def read(path: Path, **options) -> np.ndarray:
    return np.asarray(read_image(path, **options))


def saved(folder: Path, image: Image.Image, name: str = "image.png", **options) -> Path:
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("ending", ["png", "jpg", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied(tmp_path, ending, orientation):
    upright = four_corners()
    stored = {  # what a camera stores so that a viewer's turn shows it upright
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), f"image.{ending}", exif=exif, **options)
    assert np.abs(read(path).astype(int) - upright).max() <= 4


@pytest.mark.parametrize("ending", ["png", "webp"])
@pytest.mark.parametrize("metadata", [b"neither of them", b"II*\0\x08\0\0\0\xff\xff", b""])
def test_damaged_metadata_do_not_spoil_an_intact_image(tmp_path, ending, metadata):
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path, Image.fromarray(four_corners()), f"a.{ending}", exif=b"Exif\0\0" + metadata, **options)
    assert np.array_equal(read(path), four_corners())


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("background", "expected"), [(WHITE, 255), (BLACK, 0)])
def test_transparent_pixels_show_the_background(tmp_path, mode, background, expected):
    values = np.full((2, 3, 4), 100, dtype=np.uint8)
    values[0, :, 3], values[1, :, 3] = 0, 255
    image = Image.fromarray(values).convert(mode)
    shown = read(saved(tmp_path, image), background=background)
    assert shown.shape == (2, 3, 3)
    assert (shown[0] == expected).all()
    assert (shown[1] == 100).all()


def test_half_transparent_is_half_background(tmp_path):
    path = saved(tmp_path, Image.new("RGBA", (2, 2), (0, 0, 0, 128)))
    assert (np.abs(read(path).astype(int) - 127) <= 1).all()
    assert (np.abs(read(path, background=RED).astype(int) - (127, 0, 0)) <= 1).all()


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_a_palette_with_a_transparent_colour(tmp_path, ending):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    shown = read(saved(tmp_path, image, f"image.{ending}", transparency=1))
    assert shown.tolist() == [[list(RED), list(WHITE)]]


def test_a_palette_with_degrees_of_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLACK])
    image.putdata([0, 1])
    shown = read(saved(tmp_path, image, transparency=bytes([255, 0])))
    assert shown.tolist() == [[list(RED), list(WHITE)]]


@pytest.mark.parametrize(("mode", "value"), [("L", 7), ("RGB", (7, 7, 7))])
def test_one_value_that_counts_as_transparent(tmp_path, mode, value):
    image = Image.new(mode, (2, 1), value)
    image.putpixel((1, 0), 90 if mode == "L" else (90,) * 3)
    assert read(saved(tmp_path, image, transparency=value))[0, :, 0].tolist() == [255, 90]


def test_palettes_and_one_bit(tmp_path):
    coloured = Image.fromarray(four_corners())
    assert np.array_equal(read(saved(tmp_path, coloured.quantize(8))), four_corners())
    bits = Image.fromarray(np.array([[0, 255, 0]], dtype=np.uint8)).convert("1")
    assert read(saved(tmp_path, bits, "bits.tiff")).tolist() == [[list(BLACK), list(WHITE), list(BLACK)]]


@pytest.mark.parametrize("ending", ["jpg", "tiff"])
def test_cmyk(tmp_path, ending):
    options = {"quality": 100} if ending == "jpg" else {}
    path = saved(tmp_path, Image.fromarray(four_corners()).convert("CMYK"), f"image.{ending}", **options)
    with Image.open(path) as opened:
        assert opened.mode == "CMYK"
    middle = read(path)[[1, 1, 6, 6], [2, 9, 2, 9]].astype(int)
    assert np.abs(middle - (RED, GREEN, BLUE, BLACK)).max() <= 8


# --- depth -----------------------------------------------------------------------------------------------------------

RAMP = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm"])
def test_grey_of_16_bits_is_scaled_by_its_range(tmp_path, ending):
    shown = read(saved(tmp_path, Image.fromarray(RAMP), f"image.{ending}"))
    assert shown[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (shown == shown[..., :1]).all()


def write_tiff(path: Path, order: str, bits: int, width: int, data: bytes) -> None:
    """A grey image of one row, in the byte order "<" or ">"."""
    short, long = 3, 4
    tags = [
        (256, short, width), (257, short, 1), (258, short, bits), (259, short, 1), (262, short, 1), (273, long, 8),
        (277, short, 1), (278, short, 1), (279, long, len(data)),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}HH" if kind == short else f"{order}I", *values)
        for tag, kind, values in ((tag, kind, (value, 0) if kind == short else (value,)) for tag, kind, value in tags)
    )
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(data))
    path.write_bytes(start + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))


def test_big_endian_grey_of_16_bits(tmp_path):
    path = tmp_path / "image.tif"
    write_tiff(path, ">", 16, 4, RAMP.astype(">u2").tobytes())
    with Image.open(path) as opened:
        assert opened.mode == "I;16B"
    assert read(path)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_grey_of_12_bits_is_scaled_by_its_range(tmp_path):
    path = tmp_path / "image.tif"
    write_tiff(path, "<", 12, 4, bytes.fromhex("000 010 808 fff".replace(" ", "")))
    assert read(path)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_dark_images_of_16_bits_stay_dark(tmp_path):
    """Each image by the range of its format, not by its own: brightness may tell the classes apart."""
    dark = np.array([[0, 2570]], dtype=np.uint16)
    for ending in ("png", "pgm", "tiff"):
        assert read(saved(tmp_path, Image.fromarray(dark), f"image.{ending}"))[0, :, 0].tolist() == [0, 10]


def test_16_bits_with_a_transparent_value(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP), transparency=257)
    assert read(path)[0, :, 0].tolist() == [0, 255, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),
        (np.array([[70000, 140000]], np.int32), [0, 255]),
        (np.array([[5, 5]], np.int32), [0, 0]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.1, 0.2]], np.float32), [26, 51]),
        (np.array([[-4.0, 0.0, 4.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 1000.0]], np.float32), [0, 255]),
    ],
)
def test_wide_values_are_neither_white_nor_black(tmp_path, values, expected):
    assert read(saved(tmp_path, Image.fromarray(values), "image.tiff"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    path = saved(tmp_path, Image.fromarray(np.array([[0, value]], np.float32)), "image.tiff")
    with pytest.raises(ImageFileError, match="not finite"):
        read_image(path)


# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_the_first_frame_of_several(tmp_path, ending):
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path, frames[0], f"image.{ending}", save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as opened:
        assert opened.n_frames == 3
    assert (read(path) == RED).all()


# --- faults ----------------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """The one line about a file that cannot be read."""
    with pytest.raises(UsageError) as error:
        read_image(path)
    line = str(error.value)
    assert "\n" not in line
    assert line.isprintable()
    assert line.startswith(f"{str(path)!r} is not a readable image (")
    return line


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_truncated_files_are_refused(tmp_path, ending):
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), f"image.{ending}")
    read_image(path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        refusal(path)


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"not an image", "unknown format")])
def test_what_is_no_image(tmp_path, content, reason):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    assert f"({reason}); repair or remove it" in refusal(path)


def test_what_is_not_there(tmp_path):
    assert "No such file" in refusal(tmp_path / "image.png")
    assert "not a regular file" in refusal(tmp_path)
    with pytest.raises(UsageError, match="null"):
        read_image(Path("a\0b.png"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_never_opened(tmp_path):
    path = tmp_path / "image.png"
    os.mkfifo(path)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(refusal(path)), daemon=True)
    thread.start()
    thread.join(10)
    assert len(seen) == 1
    assert "not a regular file" in seen[0]


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("side", [9_500, 14_000])  # above Pillow's limit, where it warns, and above twice the limit
def test_bombs_are_refused_without_being_decoded(tmp_path, side):
    path = tmp_path / "image.png"
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))))
    assert f"more than {Image.MAX_IMAGE_PIXELS:,} pixels" in refusal(path)


def test_a_bomb_of_text_is_refused(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    refusal(saved(tmp_path, Image.new("RGB", (2, 2)), pnginfo=info))


@pytest.mark.parametrize("name", [b"\xff\xfe.png", "写真.png".encode(), b"a b\tc.png", b"\n.png"])
def test_odd_names(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    try:
        path.write_bytes(b"")
    except OSError:
        pytest.skip("this file system does not take the name")
    assert "empty" in refusal(path)
    Image.new("RGB", (3, 2), RED).save(path)
    assert read(path).shape == (2, 3, 3)


def test_flipped_bits_give_an_image_or_one_line(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(24, 24, 3), dtype=np.uint8)
    refused = []
    for ending in ("png", "jpg", "gif", "bmp", "tiff", "webp"):
        whole = np.frombuffer(saved(tmp_path, Image.fromarray(noise), f"image.{ending}").read_bytes(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(min(len(whole), 400), size=4)] = rng.integers(256, size=4)
            path = tmp_path / f"image.{ending}"
            path.write_bytes(damaged.tobytes())
            try:
                assert read_image(path).mode == "RGB"
            except ImageFileError as error:
                refused.append(error)
    assert len(refused) > 50
    assert all(error.reason and "\n" not in str(error) for error in refused)


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_inputs_are_the_normalised_centre(tmp_path):
    values = np.zeros((20, 40, 3), dtype=np.uint8)
    values[:, 10:30] = (255, 51, 0)
    path = saved(tmp_path, Image.fromarray(values))
    how = describe(size=20, short=20, crop=20, mean=(0.5, 0.2, 0.0), sd=(0.25, 0.1, 1.0))
    inputs = read_inputs(path, json.loads(json.dumps(how)))
    assert (inputs.shape, inputs.dtype) == ((1, 3, 20, 20), torch.float32)
    expected = torch.tensor([2.0, 0.0, 0.0])[:, None, None].expand(3, 20, 20)
    torch.testing.assert_close(inputs[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "damage",
    [{"short": 10**9}, {"crop": 0}, {"size": 10**6}, {"crop": 20}, {"channels": 1}, {"sd": [1.0]}, {"channels": 2}],
)
def test_damaged_descriptions_are_refused(tmp_path, damage):
    path = saved(tmp_path, Image.fromarray(four_corners()))
    how = describe(size=8, short=8, crop=8, mean=(0.5, 0.2, 0.1), sd=(0.25, 0.1, 1.0))
    assert read_inputs(path, how).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match="must be"):
        read_inputs(path, {**how, **damage})


def test_inputs_are_displayed_as_the_file_looks(tmp_path):
    path = saved(tmp_path, Image.fromarray(four_corners()))
    how = describe(size=8, short=8, crop=8, mean=(0.5, 0.2, 0.1), sd=(0.25, 0.1, 1.0))
    shown = displayed(read_inputs(path, how), how)[0]
    torch.testing.assert_close(shown.permute(1, 2, 0), torch.from_numpy(four_corners()[:, 2:10]) / 255)


def test_grey_inputs_and_another_size(tmp_path):
    path = saved(tmp_path, Image.new("RGBA", (64, 32), (0, 0, 0, 0)))
    for background, value in ((WHITE, 1.0), (BLACK, 0.0)):
        how = describe(size=16, short=32, crop=32, mean=(0.0,), sd=(1.0,), background=background)
        inputs = read_inputs(path, how)
        assert inputs.shape == (1, 1, 16, 16)
        torch.testing.assert_close(inputs, torch.full_like(inputs, value))


@pytest.mark.parametrize("size", [(1, 50_000), (50_000, 1), (3, 1)])
def test_very_long_images_take_no_more_memory_than_others(monkeypatch, size):
    resized = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, *rest: resized.append(to) or resize(self, to, *rest))
    image = Image.new("RGB", size, RED)
    shown = view(image, 224, 224)
    assert shown.size == (224, 224)
    assert (np.asarray(shown) == RED).all()
    assert max(resized[0]) <= images.LONGEST * 224


# --- the usual size --------------------------------------------------------------------------------------------------


def tree_of(paths: list[Path]) -> Tree:
    files = Files(tuple(paths), torch.zeros(len(paths), dtype=torch.int64))
    return Tree(("a", "b"), files, files, None, (), {})


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(100, 60), (70, 300), (65, 65)], 64),
        ([(640, 480)] * 3, 224),
        ([(8, 9)], 16),
        ([(47, 90), (49, 50)], 48),
    ],
)
def test_the_usual_size_is_the_median_of_the_shorter_sides(tmp_path, sizes, expected):
    paths = [saved(tmp_path, Image.new("L", size), f"{number}.png") for number, size in enumerate(sizes)]
    (tmp_path / "bad.png").write_bytes(b"none")
    assert usual_size(tree_of(paths)) == expected
    assert usual_size(tree_of([*paths, tmp_path / "bad.png", tmp_path / "absent.png"])) == expected


def test_the_usual_size_reads_few_headers_and_decodes_nothing(tmp_path, monkeypatch):
    small = saved(tmp_path, Image.new("L", (32, 32)), "small.png")
    large = saved(tmp_path, Image.new("L", (96, 96)), "large.png")
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or real(path))
    large.write_bytes(large.read_bytes()[:60])  # a header and little more
    assert usual_size(tree_of([small] * 2000 + [large] * 3000)) == 96
    assert len(opened) == images.SAMPLE


def test_a_size_for_images_none_of_which_can_be_read(tmp_path):
    assert usual_size(tree_of([tmp_path / "absent.png"])) == images.UNKNOWN_SIZE
