"""The long description of the package; everything else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup

#: Pictures and links in Markdown and in HTML. The text of a link may be a picture.
PICTURE = re.compile(r"!\[[^\]]*\]\((?P<target>[^)\s]+)\)")
LINK = re.compile(r"(?<!!)\[(?P<text>(?:!\[[^\]]*\]\([^)]*\)|[^][])*)\]\((?P<target>[^)\s]+)\)")
PICTURE_TAG = re.compile(r"<(?:img|source)\b[^>]*\bsrc(?:set)?=\"(?P<target>[^\"]+)\"[^>]*>")
LINK_TAG = re.compile(r"(?s)<a\b[^>]*\bhref=\"(?P<target>[^\"]+)\"[^>]*>(?P<text>.*?)</a>")


def describe(readme: str) -> str:
    """Return the text of README.md without pictures and links that lead nowhere elsewhere.

    Their targets are files of the repository. A picture goes, a link becomes its text, and what
    has a full address stays. So does everything in blocks of code.
    """

    def replace(found: re.Match[str]) -> str:
        if re.match(r"https?://", found["target"]):
            return found[0]
        return found.groupdict().get("text", "")

    parts = re.split(r"(?ms)(^```.*?^```$)", readme)
    for i in range(0, len(parts), 2):
        for pattern in (PICTURE, PICTURE_TAG, LINK, LINK_TAG):
            parts[i] = pattern.sub(replace, parts[i])
    return re.sub(r"\n{3,}", "\n\n", "".join(parts))


if __name__ == "__main__":
    setup(
        long_description=describe((Path(__file__).parent / "README.md").read_text("utf-8")),
        long_description_content_type="text/markdown",
    )
