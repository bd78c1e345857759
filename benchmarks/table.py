"""Fill the pages in docs that show results of other benchmarks than ``paper``."""

from benchmarks import compare_page, performance_page, single_cell_page


def main() -> None:
    """Fill every page."""
    for page in (compare_page, single_cell_page, performance_page):
        page.main()
