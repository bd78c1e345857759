"""
Fit images with convolutions of your own
========================================

An encoder and a decoder are functions that return a ``torch.nn.Module``. With ``image_shape=``
the networks see images, and the estimator still takes and returns flat rows. Standardisation,
training, sampling and saving work as with the built-in networks.
"""

# %%
# Write the networks
# ------------------
# The encoder returns ``n_outputs`` numbers per image: the code and the scale of its noise. The
# decoder returns the mean of each pixel. Keep both functions at the top level of a file, so that
# the model can be cloned and pickled.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skhebae import HEBAETransformer


def encoder(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Map images of 8 x 8 pixels to codes and scales."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, stride=2, padding=1),  # 4 x 4
        nn.GELU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),  # 2 x 2
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, n_outputs),
    )


def decoder(n_components: int, shape: tuple[int, ...]) -> nn.Module:
    """Map codes to images of 8 x 8 pixels."""
    return nn.Sequential(
        nn.Linear(n_components, 32 * 2 * 2),
        nn.Unflatten(1, (32, 2, 2)),
        nn.GELU(),
        nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),  # 4 x 4
        nn.GELU(),
        nn.ConvTranspose2d(16, shape[0], 4, stride=2, padding=1),  # 8 x 8
    )


# %%
# Fit digits
# ----------
# The built-in perceptron with one hidden layer of 128 units is the comparison. Convolutions share
# their weights over the image, so they need fewer.
train, test = train_test_split(load_digits().data / 16, test_size=400, random_state=0)
model = HEBAETransformer(
    10, encoder=encoder, decoder=decoder, image_shape=(1, 8, 8), batch_size=64, random_state=0
).fit(train)
perceptron = HEBAETransformer(10, random_state=0).fit(train)

for name, fitted in {"convolutions": model, "perceptron": perceptron}.items():
    n_weights = sum(weight.numel() for weight in fitted.fitted_.model.parameters())
    error = np.mean((fitted.inverse_transform(fitted.transform(test)) - test) ** 2)
    score = fitted.score(test)
    print(f"{name:12} {n_weights:6,} weights, held-out error {error:.4f}, {score:.1f} nats")

# %%
# See it
# ------
# Ten numbers per image are enough to redraw digits that the model has never seen. Codes drawn from
# the fitted codes decode to new digits.
reconstructed = model.inverse_transform(model.transform(test[:12]))
generated = model.sample(24, random_state=0)
lines = [test[:12], reconstructed, generated[:12], generated[12:]]

figure, axes = plt.subplots(4, 1, figsize=(9, 3.7), layout="constrained")
names = ("held-out digit", "reconstruction", "generated", "generated")
for ax, name, images in zip(axes, names, lines, strict=True):
    framed = np.pad(images.reshape(-1, 8, 8), [(0, 0), (1, 1), (1, 1)], constant_values=0.0)
    ax.imshow(np.hstack(framed), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
figure.suptitle("A convolutional autoencoder with 10 components", fontsize=14)
plt.show()
