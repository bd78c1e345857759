"""What results must not depend on: modes of the caller's thread, and a process that was forked."""

from skhebae.process.forks import ForkSafeLock, cached_property, has_forked, openmp
from skhebae.process.modes import in_plain_modes

__all__ = ["ForkSafeLock", "cached_property", "has_forked", "in_plain_modes", "openmp"]
