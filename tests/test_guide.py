r"""The pages of the user guide do what they print.

How to write a page of docs/guide for this test:

- Each ```` ```python ```` block is run, in order, in one namespace per page and in an empty folder.
  Names, imports and files of a block are there for the next ones. Use bundled data and fits of
  about two seconds.
- A block that cannot run here begins with ``# not run: `` and the reason ("needs two machines").
  Its syntax is checked all the same.
- A ```` ```text ```` or ```` ```output ```` block that follows a python block, with only blank
  lines between them, is what the block prints. Words must agree; numbers may be 20 % off, or two
  units of the last decimal, since other processors train a little differently. Integers may be
  20 % off, too. White space does not count. A line of ``...`` stands for any lines.
- ``<!-- varies -->`` on the line before such a block says that its values are drawn at random or
  are times: only the number of lines, and the words of the first line, must agree.
- Warnings and errors are part of the output, as the last line that Python shows of them:
  ``FewRowsWarning: 3 rows were held out ...``. A warning or an error that the page does not show
  fails the test, so a block that shows none must raise none.
- Print what you show. An expression in the last line is not echoed. A block may print more than the
  page shows only if no output block follows it.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs" / "guide"
PAGES = sorted(path.name for path in GUIDE.glob("*.md"))
#: Pages small enough for the quick tests.
QUICK = {"generate.md", "ship.md"}

#: The five-minute start, which is no page of the guide but is written like one.
START = "../start.md"

FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>\S*)[^\n]*\n(?P<body>.*?)^(?P=fence)\s*$", re.M | re.S
)
VARIES = "<!-- varies -->"
NOT_RUN = "# not run: "
NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:e[+-]?\d+)?(?!\w)")


@dataclass(frozen=True)
class Block:
    """A python block of a page, and what the page says it prints."""

    code: str
    line: int
    output: str | None
    varies: bool

    @property
    def runs(self) -> bool:
        return not self.code.startswith("# not run")


def read_blocks(text: str) -> list[Block]:
    """Return the python blocks of a page."""
    blocks: list[Block] = []
    end = None  # where the last python block ended
    for fence in FENCE.finditer(text):
        between = "" if end is None else text[end : fence.start()].strip()
        if fence["language"] in ("text", "output") and end is not None and between in ("", VARIES):
            last = blocks.pop()
            blocks.append(Block(last.code, last.line, fence["body"], between == VARIES))
        end = None
        if fence["language"] == "python":
            line = text.count("\n", 0, fence.start("body"))
            blocks.append(Block(fence["body"], line, None, False))
            end = fence.end()
    return blocks


def run_block(block: Block, module: types.ModuleType, page: str) -> str:
    """Run a block as lines of its page, and return what it prints, with warnings and an error."""
    printed, told, error = io.StringIO(), [], None
    # Empty lines before the code, so that a traceback names the lines of the page.
    code = compile("\n" * block.line + block.code, str(GUIDE / page), "exec")
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always")
        try:
            exec(code, vars(module))
        except Exception as raised:
            error = raised
    told = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    if error is not None:
        told.append(f"{type(error).__name__}: {error}")
        if block.output is None or f"{type(error).__name__}: " not in block.output:
            raise error
    shown = block.output or ""
    unexpected = [line for line in told if line.split(": ")[0] + ": " not in shown]
    assert not unexpected, f"{page}, line {block.line}: {unexpected}"
    return "\n".join([printed.getvalue().rstrip("\n"), *told])


def check_output(expected: str, printed: str, *, varies: bool = False) -> None:
    """Compare what a page shows with what was printed."""
    shown, real = (text.strip("\n").splitlines() for text in (expected, printed.lstrip("\n")))
    if varies:
        assert len(real) == len(shown)
        check_words(shown[0], real[0])
        return
    if "..." not in (line.strip() for line in shown):
        check_words("\n".join(shown), "\n".join(real))
        return
    stripped = [line.strip() for line in shown]
    first, last = stripped.index("..."), len(shown) - 1 - stripped[::-1].index("...")
    after = shown[last + 1 :]
    assert len(real) >= first + len(after)
    check_words("\n".join(shown[:first]), "\n".join(real[:first]))
    check_words("\n".join(after), "\n".join(real[len(real) - len(after) :]))


def check_words(expected: str, printed: str) -> None:
    """Compare words exactly and numbers loosely."""
    words = [NUMBER.sub(" # ", text).split() for text in (expected, printed)]
    assert words[1] == words[0], f"the page shows\n{expected}\nand the code prints\n{printed}"
    for one, other in zip(NUMBER.findall(expected), NUMBER.findall(printed), strict=True):
        wanted, got = (float(number.replace(",", "")) for number in (one, other))
        mantissa, _, exponent = one.partition("e")
        decimals = len(mantissa.partition(".")[2])
        # An integer of the page must be met to 20 %; a decimal's last digits may be noise.
        noise = 2.0 * 10.0 ** (int(exponent or 0) - decimals) if decimals else 0.0
        assert got == pytest.approx(wanted, rel=0.2, abs=noise), f"{one} shown, {other} printed"


def page_parameters() -> list[object]:
    """Return the pages, all but the small ones marked as slow."""
    return [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name in (*PAGES, START)
    ]


@pytest.mark.parametrize("page", page_parameters())
def test_page_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    # A module, since pickle looks classes of a page up by the name of theirs.
    module = types.ModuleType("guide_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    try:
        for block in read_blocks((GUIDE / page).read_text(encoding="utf-8")):
            if not block.runs:
                continue
            printed = run_block(block, module, page)
            if block.output is not None:
                try:
                    check_output(block.output, printed, varies=block.varies)
                except AssertionError as error:
                    error.add_note(f"{page}, line {block.line + 1}")
                    raise
    finally:
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.parametrize("page", [*PAGES, START])
def test_page_is_well_formed(page):
    text = (GUIDE / page).read_text(encoding="utf-8")
    assert text.startswith("# ")
    for block in read_blocks(text):
        ast.parse(block.code)
        assert block.runs or block.code.startswith(NOT_RUN), f"line {block.line}: say why"


def test_every_page_is_in_the_index():
    index = (GUIDE / "index.md").read_text(encoding="utf-8")
    listed = {line.strip() for body in index.split("```{toctree}")[1:] for line in body.split("\n")}
    assert {name.removesuffix(".md") for name in PAGES} - {"index"} <= listed


PAGE = """# Title

```python
x = 1
print(x)
```

```text
1
```

```python
# not run: needs a GPU
print(x + 1)
```

Prose.

```text
not an output
```

```python
print(x + 2)
```

<!-- varies -->
```output
7
```
"""


def test_blocks_of_a_page():
    first, second, third = read_blocks(PAGE)
    assert (first.code, first.output, first.varies) == ("x = 1\nprint(x)\n", "1\n", False)
    assert PAGE.splitlines()[first.line] == "x = 1"
    assert not second.runs
    assert second.output is None
    assert (third.output, third.varies) == ("7\n", True)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("error 0.0098, 450 rows", "error  0.0101, 449 rows"),
        ("hebae0 0.00", "hebae0 0.02"),
        ("a\n...\nb 1", "a\nc\nd\nb 1"),
        ("(450, 10)", "(450, 10)"),
        ("1,797 rows", "1,801 rows"),
        ("[0.9 1.  1. ]", "[0.9 1.1 1. ]"),
    ],
)
def test_what_counts_as_the_same_output(shown, printed):
    check_output(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("error 0.0098", "error 0.0140"),
        ("hebae0 1.0", "hebae1 1.0"),
        ("10 of 10 active", "10 of 10 collapsed"),
        ("10 of 10", "6 of 10"),
        ("1", ""),
        ("0 alarms", "1 alarms"),
        ("-3.0", "3.0"),
        ("a\n...\nb", "a"),
        ("a", "a\nb"),
    ],
)
def test_what_counts_as_another_output(shown, printed):
    with pytest.raises(AssertionError):
        check_output(shown, printed)


def test_a_page_shows_its_warnings_and_errors():
    module = types.ModuleType("page")
    warns = "import warnings\nwarnings.warn('odd', UserWarning, stacklevel=1)\n"
    assert run_block(Block(warns, 0, "UserWarning: odd", False), module, "p").strip() == (
        "UserWarning: odd"
    )
    with pytest.raises(AssertionError, match="odd"):
        run_block(Block(warns, 0, None, False), module, "p")
    fails = Block("raise ValueError('bad')\n", 0, "ValueError: bad", False)
    assert run_block(fails, module, "p").strip() == "ValueError: bad"
    with pytest.raises(ZeroDivisionError):
        run_block(Block("1 / 0\n", 0, "ValueError: bad", False), module, "p")
