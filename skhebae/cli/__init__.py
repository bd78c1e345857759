"""The command `skhebae`: fit a model to a file and use it, without writing Python."""

from skhebae.cli.main import main

__all__ = ["main"]
