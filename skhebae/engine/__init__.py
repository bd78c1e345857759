"""Training: knows an objective, rows and an optimiser; no estimator, no table."""

from skhebae.engine.devices import resolve_device, resolve_precision
from skhebae.engine.loop import Schedule, Trainer

__all__ = ["Schedule", "Trainer", "resolve_device", "resolve_precision"]
