"""How Sphinx makes the site: `make docs`."""

import re
from pathlib import Path
from typing import Any

import anystride

PROJECT = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
SOURCE = re.search(r'^Source = "(.+)"$', PROJECT, re.MULTILINE)[1]

project = "anystride"
author = copyright = "The anystride developers"
release = version = anystride.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "pictures/*.py"]
suppress_warnings = ["myst.header"]

# Pages are Markdown; those of docs/tutorials are run, and show what they print and draw.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"

autodoc_typehints = "none"  # docstrings say it in words
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "training, spatial_dims"}
napoleon_use_rtype = False
napoleon_use_ivar = True

default_role = "code"

html_theme = "furo"
html_title = f"anystride {release}"
html_theme_options = {
    "source_repository": SOURCE,
    "source_branch": "main",
    "source_directory": "docs/",
}
html_static_path: list[str] = []


def _starred(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Shapes as (N, C, *spatial) are no emphasis."""
    lines[:] = [re.sub(r"\*(?=[a-z])", r"\\*", line) if ">>>" not in line else line for line in lines]


def _linked(app: object, name: str, source: list[str]) -> None:
    """Files outside of this folder are those of the repository; pictures come along."""
    outside = r"\]\((?:\.\./)+(?!docs/)([^)#]+?)(?<!\.png)(?<!\.gif)\)"
    if not name.startswith("tutorials/"):  # whose links to `../` stay in this folder
        source[0] = re.sub(outside, rf"]({SOURCE}/blob/main/\1)", source[0])


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _starred)
    app.connect("source-read", _linked)
