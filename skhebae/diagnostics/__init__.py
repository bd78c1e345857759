"""What the objective did to the codes, where the bound is lost, and how much to regularise."""

from skhebae.diagnostics.gap import bound_gap
from skhebae.diagnostics.gap_report import BoundGap
from skhebae.diagnostics.latent import latent_report
from skhebae.diagnostics.path import RegularisationPath
from skhebae.diagnostics.regularisation import regularisation_path
from skhebae.diagnostics.report import LatentReport

__all__ = [
    "BoundGap",
    "LatentReport",
    "RegularisationPath",
    "bound_gap",
    "latent_report",
    "regularisation_path",
]
