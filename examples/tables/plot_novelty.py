"""
Find strange rows, and see why they are strange
===============================================

Fit a :class:`~skhebae.NoveltyDetector` to rows that you know to be fine. It gives every new row a
p-value, raises alarms at a rate that you choose, and names the columns that are to blame.
"""

# %%
# Fit to normal rows only
# -----------------------
# The table has thirty measurements per breast tumour. Fit to benign tumours and keep some of them
# aside. The detector never sees a malignant one.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from skhebae import HEBAETransformer, NoveltyDetector
from skhebae.plotting import NoveltyDisplay

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
benign, held_out = train_test_split(X[y == 1], test_size=0.4, random_state=0)
malignant = X[y == 0]
detector = NoveltyDetector(random_state=0).fit(benign)

# %%
# Choose the rate of false alarms
# -------------------------------
# A p-value is the share of normal rows that are at least as strange as this one. If you raise an
# alarm at p-values of at most 5 %, about 5 % of the normal rows raise a false one. That holds
# whether or not the model is any good. A good model finds more novelties.

false_alarms = np.mean(detector.p_values(held_out) <= 0.05)
found = np.mean(detector.p_values(malignant) <= 0.05)
test = pd.concat([held_out, malignant])
is_benign = np.repeat([1, 0], [len(held_out), len(malignant)])
auroc = roc_auc_score(is_benign, detector.score_samples(test))
print(f"alarms at 5 %: {found:.0%} of malignant and {false_alarms:.0%} of benign tumours")
print(f"area under the ROC curve {auroc:.3f}")

# %%
# Try something simpler too. On tables like this one, where novelties have large values in single
# columns, an isolation forest ranks them at least as well. It has no p-values and explains
# nothing.

forest = IsolationForest(random_state=0).fit(benign)
forest_auroc = roc_auc_score(is_benign, forest.score_samples(test))
print(f"area under the ROC curve of an isolation forest {forest_auroc:.3f}")

# %%
# Among many rows, even 5 % are many false alarms. Pass ``adjust="bh"`` to limit the share of false
# alarms among all alarms instead.

p_values = detector.p_values(test, adjust="bh")
alarms = p_values <= 0.1
false_share = np.mean(alarms[: len(held_out)]) * len(held_out) / alarms.sum()
print(f"{alarms.sum()} alarms, {false_share:.0%} of them false")

# %%
# See which columns are to blame
# ------------------------------
# ``explain`` returns the share of each column in a row's strangeness. On average, these columns
# make malignant tumours unlike benign ones.

blame = detector.explain(malignant, code="columns").mean().nlargest(5)
print(blame.map("{:.1%}".format).to_string())

# %%
# See which pixels are to blame
# -----------------------------
# Where a row is an image, draw the shares as a map. This detector has seen all digits except 4.
# Below each 4 are the pixels that it did not expect.

images, digits = load_digits(return_X_y=True)
known, known_later = train_test_split(images[digits != 4], test_size=0.3, random_state=0)
unseen = images[digits == 4]
reader = NoveltyDetector(HEBAETransformer(10), random_state=0).fit(known)
alarm_rate = np.mean(reader.p_values(unseen) <= 0.05)
false_rate = np.mean(reader.p_values(known_later) <= 0.05)
print(f"alarms at 5 %: {alarm_rate:.0%} of the fours and {false_rate:.0%} of other digits")

display = NoveltyDisplay.from_estimator(reader, unseen, rows=range(6), image_shape=(8, 8))
display.figure_.suptitle("Fours, for a detector that has never seen one", fontsize=14)
plt.show()
