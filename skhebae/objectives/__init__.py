"""Objectives: how the codes of an autoencoder are regularised; one per file."""

from skhebae.objectives.base import Objective, Terms
from skhebae.objectives.capacity import CapacityObjective, check_capacity
from skhebae.objectives.hebae import HEBAEObjective
from skhebae.objectives.tilted import TiltedVAEObjective
from skhebae.objectives.vae import VAEObjective
from skhebae.objectives.wae import WAEObjective

__all__ = [
    "CapacityObjective",
    "HEBAEObjective",
    "Objective",
    "Terms",
    "TiltedVAEObjective",
    "VAEObjective",
    "WAEObjective",
    "check_capacity",
]
