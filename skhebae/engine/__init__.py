"""Training: knows an objective, rows and an optimiser; no estimator, no table."""

from skhebae.engine.checkpoint import Checkpoint
from skhebae.engine.devices import resolve_device, resolve_precision
from skhebae.engine.loop import Trainer
from skhebae.engine.schedule import Schedule

__all__ = ["Checkpoint", "Schedule", "Trainer", "resolve_device", "resolve_precision"]
