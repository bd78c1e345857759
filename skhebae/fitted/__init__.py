"""Fitted autoencoders as values, and the function that makes them."""

from skhebae.fitted.autoencoder import FittedAutoencoder
from skhebae.fitted.fit import fit_autoencoder
from skhebae.fitted.parameters import Parameters, parameter, with_parameters
from skhebae.fitted.summary import FitSummary

__all__ = [
    "FitSummary",
    "FittedAutoencoder",
    "Parameters",
    "fit_autoencoder",
    "parameter",
    "with_parameters",
]
