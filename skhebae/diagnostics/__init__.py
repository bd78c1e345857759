"""What the objective did to the codes, and where the bound is lost: reports that users can read."""

from skhebae.diagnostics.gap import bound_gap
from skhebae.diagnostics.gap_report import BoundGap
from skhebae.diagnostics.latent import latent_report
from skhebae.diagnostics.report import LatentReport

__all__ = ["BoundGap", "LatentReport", "bound_gap", "latent_report"]
