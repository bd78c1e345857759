"""
Resume an interrupted fit
=========================

Pass ``checkpoint=`` to ``fit`` and the state of training goes to a file. If the process is
stopped, call ``fit`` again with the same arguments. It continues from the file and ends with the
same model, bit for bit.
"""

# %%
# Fit without interruption
# ------------------------
# This is the result to reproduce. The learning rate follows a schedule of our own, because that
# function is called at the start of each epoch and can therefore interrupt the fit below.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skhebae import HEBAETransformer

power_cut, epochs_run = False, set()


def schedule(epoch: int) -> float:
    """Lower the rate by 4 % per epoch, note the epoch, and perhaps stop in epoch 30."""
    if power_cut and epoch == 29:
        raise KeyboardInterrupt
    epochs_run.add(epoch)
    return 0.96**epoch


X = load_digits().data / 16
params = {"n_components": 10, "learning_rate": schedule, "random_state": 0}
params["linear_path"] = False  # its trial fit would call the schedule, too
whole = HEBAETransformer(**params).fit(X)

# %%
# Interrupt one
# -------------
# ``KeyboardInterrupt`` stands for Ctrl-C, a lost connection or a machine that is taken away.
checkpoint = Path(tempfile.mkdtemp()) / "digits.ckpt"
power_cut, epochs_run = True, set()
try:
    HEBAETransformer(**params).fit(X, checkpoint=checkpoint)
except KeyboardInterrupt:
    print(f"stopped after {len(epochs_run)} epochs; {checkpoint.stat().st_size / 1e6:.1f} MB saved")
first_session = sorted(epochs_run)

# %%
# Resume it
# ---------
# The second call is the same as the first. The file holds the weights, the state of the optimiser
# and of the random numbers, and the losses so far. It is written at the end of epochs, but takes
# less than 5 % of the time. A few short epochs may therefore run again.
power_cut, epochs_run = False, set()
resumed = HEBAETransformer(**params).fit(X, checkpoint=checkpoint)
second_session = sorted(epochs_run)
print(f"continued with epoch {second_session[0] + 1} of {resumed.n_iter_}")

same_codes = np.array_equal(resumed.transform(X), whole.transform(X))
same_loss = resumed.history_["loss"] == whole.history_["loss"]
print(f"codes identical: {same_codes}; losses of all epochs identical: {same_loss}")

# %%
# See it
# ------
# The bars below the curves show which epochs each session ran. The losses of the resumed fit lie
# on those of the fit that nobody interrupted.
figure, (ax, sessions) = plt.subplots(
    2, 1, figsize=(8, 5.4), layout="constrained", sharex=True, height_ratios=[4, 1]
)
epochs = np.arange(1, resumed.n_iter_ + 1)
ax.plot(epochs, whole.history_["loss"], color="#56B4E9", lw=7, label="never interrupted")
ax.plot(epochs, resumed.history_["loss"], color="black", lw=1.8, label="interrupted and resumed")
ax.set(title="A resumed fit takes the same path", ylabel="loss, nats per image")
ax.legend(loc="upper center")
for level, session in enumerate((first_session, second_session)):
    colour = ("#E69F00", "#009E73")[level]
    sessions.barh(1 - level, len(session), left=session[0] + 0.5, color=colour)
sessions.set(yticks=[1, 0], yticklabels=["first session", "second session"], xlabel="epoch")
for panel in (ax, sessions):
    panel.axvline(len(first_session) + 0.5, color="#D55E00", ls="--")
ax.text(
    len(first_session) + 1, 0.5, "interrupted", color="#D55E00", transform=ax.get_xaxis_transform()
)
plt.show()
