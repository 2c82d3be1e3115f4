"""What pyproject.toml cannot say: the README as a package index shows it, where links must lead back to the project."""

import re
from pathlib import Path

from setuptools import setup

SOURCE = "https://github.com/anystride/anystride"
PICTURES = "https://raw.githubusercontent.com/anystride/anystride/main"


def absolute(text: str) -> str:
    """The README with links and pictures that are right wherever it is read."""
    text = re.sub(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)", rf"![\1]({PICTURES}/\2)", text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]+)\)", rf"[\1]({SOURCE}/blob/main/\2)", text)


setup(
    long_description=absolute((Path(__file__).parent / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
