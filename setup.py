"""The long description of the package; everything else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup

#: Links and pictures in Markdown, each alone or a picture that is a link.
PICTURE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
LINK = re.compile(r"(?<!!)\[(?P<text>(?:!\[[^\]]*\]\([^)]*\)|[^][])*)\]\((?P<target>[^)\s]+)\)")
TAG = re.compile(r"<img\b[^>]*\bsrc=\"(?P<target>[^\"]+)\"[^>]*>")


def describe(readme: str) -> str:
    """Return the text of README.md without pictures and links that lead nowhere elsewhere.

    Their targets are files of the repository. A picture goes, a link becomes its text, and what
    has a full address stays. So does everything in blocks of code.
    """
    parts = re.split(r"(?ms)(^```.*?^```$)", readme)
    for i in range(0, len(parts), 2):
        for pattern, keeps_text in ((PICTURE, False), (TAG, False), (LINK, True)):
            parts[i] = pattern.sub(
                lambda found, keeps_text=keeps_text: (
                    found[0]
                    if re.match(r"https?://", found["target"])
                    else found["text"]
                    if keeps_text
                    else ""
                ),
                parts[i],
            )
    return re.sub(r"\n{3,}", "\n\n", "".join(parts))


if __name__ == "__main__":
    setup(
        long_description=describe((Path(__file__).parent / "README.md").read_text("utf-8")),
        long_description_content_type="text/markdown",
    )
