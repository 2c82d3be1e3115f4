"""The report: one page that needs no network, from records, also where some are missing."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from anystride.lab import cli
from anystride.lab.errors import UsageError
from anystride.lab.paper.grid import GridRequest, run_folder, save_request
from anystride.lab.record import write
from anystride.lab.report.html.page import report
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import save

from ..records import fabricated

VOID = {"meta", "br", "line", "circle", "polyline"}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, dataset in (("table3", "cifar10"), ("table3", "scenes"), ("figure4", "scenes")):
        request = GridRequest(name, dataset, 0.5, 2, {"width": 2})
        save_request(request, tmp_path)
        grid = request.grid()
        for number, run in enumerate(grid.runs):
            if run.seed or number % 7:  # some are missing
                record = fabricated(run, accuracy=0.925 if run.method == "outer" else 0.4 + 0.005 * run.seed)
                save(record, run_folder(tmp_path, run) / "record.json")
    ratios = {"training time": {"strided": 1.0, "spectral": 1.1, "outer": 1.25, "inner": 1.05}}
    settings = {"device": "cpu", "width": 2, "batch_size": 4, "memory": "none"}
    published = {"training time": {"outer": 1.43}}
    kept = {"schema": 1, "recipe": "table-a2", "ratios": ratios, "settings": settings, "published": published}
    write(kept, tmp_path / "measurements" / "table-a2.json")
    return tmp_path


class Balanced(HTMLParser):
    """Fails on a tag that is closed in the wrong place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.loads += [str(values[name]) for name in ("src", "srcset", "data") if name in values]
        self.loads += ["link"] if tag == "link" else []
        self.links += [str(values["href"])] if "href" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(results: Path) -> None:
    page = report(results, results / "report.html").path.read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.loads == []
    assert "url(" not in page
    assert "@import" not in page
    for link in parser.links:
        target = page if link.startswith("#") else results / link
        assert f'id="{link[1:]}"' in page if isinstance(target, str) else target.exists(), link
    assert not list(results.glob(".report*"))


def test_values_stand_beside_the_published_ones(results: Path) -> None:
    page = report(results, results / "report.html").path.read_text()
    assert "92.5 ± 0.0" in page
    assert "published 92.5 ± 0.1, difference +0.0" in page  # CIFAR: the paper's data
    scenes = page[page.index('id="table3-scenes') :]
    assert "published 92.5 ± 0.1<" in scenes  # a stand-in claims no difference
    assert "for orientation only" in scenes
    assert "(1 of 2 runs)" in page
    assert "5.00 x strided" in page
    assert "1.25" in page
    assert "published 1.43" in page
    assert "a &lt;fast&gt; one" in page
    assert "a <fast> one" not in page
    assert "lambda 10" in page


def test_the_page_may_lie_elsewhere(results: Path) -> None:
    (results / "pages").mkdir()
    page = report(results, results / "pages" / "page.html").path.read_text()
    parser = Balanced()
    parser.feed(page)
    records = [link for link in parser.links if link.endswith("record.json")]
    assert records
    assert all((results / "pages" / link).exists() for link in records)


def test_wrong_input(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path / "nowhere")]) == 2
    assert "RESULTS_DIR must hold folders with a record.json" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--out must be a file in a folder that exists"):
        report(results, results / "no" / "report.html")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")
@pytest.mark.parametrize("width", [375, 1280])
def test_a_browser_shows_it_without_overflow(results: Path, width: int, tmp_path: Path) -> None:
    page = report(results, results / "report.html").path
    # A headless window is at least 500 pixels wide: a frame gives the page the width of a phone.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="page" src="report.html" width="{width}" height="900"></iframe><script>onload = () => {{'
        "const root = document.getElementById('page').contentDocument.documentElement;"
        "document.body.dataset.seen = [root.dataset.ready, root.dataset.overflow, root.clientWidth]; };</script>"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--window-size=1400,1000"]
    done = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    seen = re.search(r'data-seen="(\d+),(\w+),(\d+)"', done.stdout)
    assert seen, done.stdout[-500:]
    points, overflow, inner = seen.groups()
    assert int(points) == page.read_text().count("data-tip=") > 50
    assert overflow == "false"
    assert width - 20 <= int(inner) <= width


def test_any_folder_of_runs_has_a_page(tmp_path: Path) -> None:
    """As `anystride train` leaves them: no grid, several networks, at several depths, with names that are no HTML."""
    audio = RunConfig(model="audio", data="notes-pitch", method="cosine", strides=((2.0, 2.0),) * 6)
    configs = {
        "a <b> & c/one": RunConfig(method="inner", data="my <photos>"),
        "two": RunConfig(method="strided", data="my <photos>"),
        "deep/deeper/deepest": audio,
        "1/2/3/too deep": audio,
        ".hidden": audio,
    }
    for name, config in configs.items():
        changes = {"validation_accuracy": 0.8125} if name == "two" else {}
        save(fabricated(config, **changes), tmp_path / name / "record.json")
    page = report(tmp_path, tmp_path / "report.html")
    assert (page.runs, page.problems) == (3, ())
    text = page.path.read_text()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    records = [unquote(link) for link in parser.links]
    assert records[:3] == [f"{name}/record.json" for name in ("a <b> & c/one", "deep/deeper/deepest", "two")]
    assert all((tmp_path / link).exists() for link in records)
    assert "a &lt;b&gt; &amp; c/one" in text
    assert "my &lt;photos&gt;" in text
    assert "<photos>" not in text
    assert "81.2" in text
    assert text.count("strides over the epochs; solid") == 2
    assert "solid time, dashed frequency" in text
    assert text.count("every run on ") == 2
    assert "Riad et al." not in text


def test_runs_of_the_paper_may_lie_one_level_below(results: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    above = tmp_path_factory.mktemp("above")
    shutil.copytree(results, above / "paper")
    save(fabricated(RunConfig(method="outer")), above / "mine" / "record.json")
    page = report(above, above / "report.html")
    text = page.path.read_text()
    assert "cifar10, 50 % of the epochs, width 2, in paper" in text
    assert "92.5 ± 0.0" in text
    assert "mine: DiffStride, outer from (2, 2, 2): strides over the epochs" in text
    assert not re.search(r"paper/runs/[\w-]+: DiffStride", text)  # those have their figures in the paper's sections


def test_strides_that_are_no_numbers_are_left_out_of_figures(tmp_path: Path) -> None:
    record = fabricated(RunConfig(method="outer"))
    record.epochs[0]["strides"] = [[None, None]] * 3
    save(record, tmp_path / "record.json")
    page = report(tmp_path, tmp_path / "report.html")
    assert page.problems == ()
    assert "stride 1, vertical, epoch 2: 1.50" in page.path.read_text()
