"""The pictures of the site: the steps of the layer on a photograph, the way back up, scales, a stride that is learned.

    python docs/pictures/draw.py    # writes four files beside itself; needs the extra `lab`

The photograph is scikit-learn's "china.jpg" (CC BY 2.0).
"""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import animation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor

import anystride

HERE = Path(__file__).parent
SIDE = 128
BLUE = "#2a78b5"
mpl.rcParams.update({"font.size": 9, "axes.titlesize": 9, "savefig.dpi": 110})


def photograph() -> Tensor:
    """A grey photograph, (1, 1, SIDE, SIDE), from 0 to 1."""
    grey = torch.from_numpy(load_sample_image("china.jpg").copy()).float().mean(2)[None, None, :420, 110:530] / 255
    return torch.nn.functional.interpolate(grey, size=(SIDE, SIDE), mode="area")


def spectrum(x: Tensor) -> Tensor:
    """Logarithm of the magnitudes, the mean in the middle."""
    return torch.fft.fftshift(torch.fft.fft2(x[0, 0])).abs().add(1e-1).log10()


def window(pool: anystride.DiffStride2d) -> Tensor:
    """Gain of each frequency, the mean in the middle."""
    bands = pool.bands((SIDE, SIDE))
    rows, columns = ([band.gain(k - SIDE // 2) for k in range(SIDE)] for band in bands)
    return torch.tensor(rows)[:, None] * torch.tensor(columns)[None]


def steps() -> None:
    """Map, spectrum, window, crop, smaller map."""
    x, pool = photograph(), anystride.DiffStride2d((2.4, 3.2), ramp="inner", smoothness=8.0)
    with torch.no_grad():
        y = pool(x)
    height, width = y.shape[2:]
    gains, magnitudes = window(pool), spectrum(x)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    crop = (gains * magnitudes)[top : top + height, left : left + width]
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    panels = figure.subplots(1, 5)
    shown = [
        (x[0, 0], f"map, {SIDE} x {SIDE}", "gray"),
        (magnitudes, "its spectrum", "magma"),
        (gains, "window: strides 2.4 and 3.2", "gray"),
        (crop, f"what is kept, {height} x {width}", "magma"),
        (y[0, 0], f"smaller map, {height} x {width}", "gray"),
    ]
    for panel, (image, title, colours) in zip(panels, shown, strict=True):
        whole = image.shape[0] == SIDE
        low, high = (float(magnitudes.min()), float(magnitudes.max())) if colours == "magma" else (0, 1)
        extent = (0, SIDE, SIDE, 0) if whole else (left, left + width, top + height, top)
        panel.imshow(image, cmap=colours, vmin=low, vmax=high, extent=extent)
        panel.set(title=title, xlim=(0, SIDE), ylim=(SIDE, 0))
        panel.axis("off")
    figure.savefig(HERE / "steps.png")


def shown(panel: Axes, image: Tensor, title: str) -> None:
    """A map in grey at its size on the large grid."""
    height, width = image.shape
    panel.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    panel.set(title=title, xlim=(0, SIDE), ylim=(SIDE, 0))
    panel.axis("off")


def upwards() -> None:
    """Down by 4, and back up in three ways."""
    x, pool = photograph(), anystride.DiffStride2d(4.0, ramp="inner", smoothness=4.0)
    with torch.no_grad():
        y = pool(x)
        through = anystride.SpectralUpsample2d(follows=pool)(y, x)
        spectral = anystride.functional.spectral_resize(y, SIDE)
    bilinear = torch.nn.functional.interpolate(y, size=(SIDE, SIDE), mode="bilinear")
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    names = ("map", "at stride 4", "up: bilinear", "up: all its frequencies", "up: follows the window")
    for panel, image, name in zip(figure.subplots(1, 5), (x, y, bilinear, spectral, through), names, strict=True):
        shown(panel, image[0, 0], name)
    figure.savefig(HERE / "up.png")


def scales() -> None:
    """One map at three strides beside each other, and two examples at strides of their own."""
    x = photograph()
    calm, busy = x[..., :48, 64:112], x[..., 52:100, 0:48]
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    panels = figure.subplots(1, 5)
    with torch.no_grad():
        for panel, stride in zip(panels, (1.0, 2.0, 4.0), strict=False):
            shown(panel, anystride.SpectralPool2d(stride)(x)[0, 0], f"branch at stride {stride:g}")
        for panel, image, stride in zip(panels[3:], (calm, busy), (3.6, 1.2), strict=True):
            y = anystride.SpectralPool2d(stride)(image)[0, 0]
            panel.imshow(y, cmap="gray", vmin=0, vmax=1)
            panel.set(title=f"example at stride {stride:g}:\n{y.shape[0]} x {y.shape[1]} of 48 x 48")
            panel.axis("off")
    figure.savefig(HERE / "scales.png")


def learning(frames: int = 60) -> None:
    """A stride that learns what the photograph needs: the error of a reconstruction against the share of samples."""
    x = photograph()
    pool = anystride.DiffStride2d(1.3, ramp="inner", smoothness=8.0)
    up = anystride.SpectralUpsample2d(follows=pool)
    optimiser = torch.optim.Adam(anystride.param_groups(pool, lr=0.06))
    history: list[tuple[Tensor, Tensor, list[float]]] = []
    for _ in range(frames):
        y = pool(x)
        error = (up(y, x) - x).square().mean() / x.var()
        loss = error + 0.2 * anystride.complexity(pool)
        optimiser.zero_grad()
        loss.backward()
        history.append((y.detach()[0, 0], window(pool), pool.effective_stride().tolist()))
        optimiser.step()
    figure = Figure(figsize=(7.5, 2.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    magnitudes = spectrum(x)

    def draw(number: int) -> None:
        y, gains, _ = history[number]
        for panel in (left, middle, right):
            panel.clear()
        height, width = y.shape
        left.imshow(y, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        left.set(title=f"map, {height} x {width}", xlim=(0, SIDE), ylim=(SIDE, 0))
        middle.imshow(magnitudes, cmap="magma")
        middle.contour(gains, levels=[0.5], colors="white", linewidths=1.2)
        middle.set(title="spectrum and window")
        for panel in (left, middle):
            panel.axis("off")
        for axis, style in ((0, "-"), (1, "--")):
            right.plot([strides[axis] for *_, strides in history[: number + 1]], style, color=BLUE)
        right.set(title="strides: height -, width - -", xlim=(0, frames), ylim=(1, 4.5), xlabel="step")
        right.spines[["top", "right"]].set_visible(False)

    film = animation.FuncAnimation(figure, draw, frames=[*range(0, frames, 2), *[frames - 1] * 8])
    film.save(HERE / "learning.gif", writer=animation.PillowWriter(fps=6), dpi=70)


if __name__ == "__main__":
    steps()
    upwards()
    scales()
    learning()
