"""Training of a model by an objective on rows; knows no estimator and no table."""

from skhebae.training.adam import Adam
from skhebae.training.checkpoint import Checkpoint
from skhebae.training.devices import resolve_device, resolve_precision
from skhebae.training.loop import History, Split, train
from skhebae.training.minibatches import count_minibatches
from skhebae.training.resume import StateCheck
from skhebae.training.run import Generators, Run
from skhebae.training.schedule import Schedule

__all__ = [
    "Adam",
    "Checkpoint",
    "Generators",
    "History",
    "Run",
    "Schedule",
    "Split",
    "StateCheck",
    "count_minibatches",
    "resolve_device",
    "resolve_precision",
    "train",
]
