"""What the objective did to the codes: a report that a user can read."""

from skhebae.diagnostics.latent import latent_report
from skhebae.diagnostics.report import LatentReport

__all__ = ["LatentReport", "latent_report"]
