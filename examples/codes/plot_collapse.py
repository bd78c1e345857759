"""
See posterior collapse, and avoid it
====================================

A variational autoencoder may stop using some of its dimensions: they collapse. You will see what
that looks like, find it with :func:`~skhebae.diagnostics.latent_report`, and compare with
:class:`~skhebae.HEBAETransformer`, whose dimensions stay in use.
"""

# %%
# Fit with a large penalty
# ------------------------
# Fit three models to digits: a VAE with the usual weight of the penalty, a VAE with four times
# that weight, and HEBAE with the same large weight. Whitened codes have all dimensions on one
# scale. A linear path would start the networks as PCA and make collapse rarer, so leave it out
# here.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skhebae import HEBAETransformer, VAETransformer
from skhebae.diagnostics import latent_report
from skhebae.exceptions import LatentWarning

X_train, X_test = train_test_split(load_digits().data / 16, random_state=0)
settings = {"n_components": 10, "linear_path": False, "whiten": True, "random_state": 0}
models = {
    "VAE, beta 1": VAETransformer(**settings, beta=1),
    "VAE, beta 4": VAETransformer(**settings, beta=4),
    "HEBAE, weight 4": HEBAETransformer(**settings, reg_weight=4),
}
for model in models.values():
    model.fit(X_train)

# %%
# Look at the covariance of the codes
# -----------------------------------
# A dimension that is in use has a variance near 1. One that has collapsed has almost the same code
# for every row, so its variance is near 0. The codes should also be uncorrelated. Dimensions are
# sorted by how much they change the decoded row, so the collapsed ones come last.
# :class:`~skhebae.plotting.CovarianceDisplay` draws such maps in one line, with numbers.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), layout="constrained")
for axis, (name, model) in zip(axes, models.items(), strict=True):
    covariance = np.cov(model.transform(X_test), rowvar=False)
    image = axis.imshow(covariance, cmap="RdBu_r", vmin=-1.2, vmax=1.2)
    axis.set_title(f"{name}\n{np.sum(np.diag(covariance) > 0.1)} of 10 dimensions in use")
    axis.set_xlabel("dimension")
    axis.set_xticks(range(10), range(1, 11))
    axis.set_yticks(range(10), range(1, 11))
axes[0].set_ylabel("dimension")
figure.colorbar(image, ax=axes, label="covariance of held-out codes", shrink=0.85)
plt.show()

# %%
# Ask for a report
# ----------------
# You do not need to look at heat maps: ``latent_report`` lists each dimension and says which ones
# have collapsed. It also raises a :class:`~skhebae.exceptions.LatentWarning` for each problem,
# which we silence because the printed report repeats it.

reports = {}
for name, model in models.items():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)
        reports[name] = latent_report(model, X_test)
print(reports["VAE, beta 4"])

# %%
# Compare what is lost
# --------------------
# A collapsed dimension does not help to reconstruct rows. The penalty of a VAE pulls the posterior
# of each row towards N(0, I), and a dimension without information has no penalty at all. HEBAE
# pulls the distribution of all codes towards N(0, I), and that needs every dimension to vary.

errors = {}
for name, model in models.items():
    decoded = model.inverse_transform(model.transform(X_test))
    errors[name] = ((decoded - X_test) ** 2).mean()
    n_active = reports[name].active.sum()
    print(f"{name:16} {n_active} of 10 dimensions active, error {errors[name]:.4f}")
