"""What the objective did to the codes, and how much of it there should be."""

from skhebae.diagnostics.latent import latent_report
from skhebae.diagnostics.path import RegularisationPath
from skhebae.diagnostics.regularisation import regularisation_path
from skhebae.diagnostics.report import LatentReport

__all__ = ["LatentReport", "RegularisationPath", "latent_report", "regularisation_path"]
