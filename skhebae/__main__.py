"""``python -m skhebae`` is the command ``skhebae``."""

import sys

from skhebae.cli import main

if __name__ == "__main__":
    sys.exit(main())
