"""What the examples on tables and codes claim, as a last cell of their notebooks."""

from __future__ import annotations

CHECKS: dict[str, str] = {
    "tables/plot_digits": """
assert errors["HEBAE"] < 0.55 * errors["PCA"]  # halves the error
assert min(accuracy.values()) > 0.9
assert accuracy["HEBAE"] > accuracy["PCA"] - 0.01  # a classifier works as before
drawn = rows["new digits"]
assert drawn.shape == (10, 64)
nearest = np.sqrt(((drawn[:, None] - X_train) ** 2).sum(axis=2)).min(axis=1)
apart = np.sqrt(((X_test[:200, None] - X_train) ** 2).sum(axis=2)).min(axis=1)
assert 0.3 < nearest.mean() / apart.mean() < 2.0  # digits, and no copies
""",
    "tables/plot_missing_values": """
assert 0.19 < missing.mean() < 0.23
assert 0.45 < missing.any(axis=1).mean() < 0.55  # half of the sheets
assert rmse["HEBAE"] < 0.6 * rmse["column mean"]
assert np.sqrt(np.mean(((draws[0] - data.data) / spread)[missing] ** 2)) > rmse["HEBAE"]
assert 0.87 < coverage < 0.95  # 90 % intervals
columns = [list(data.feature_names).index(name) for name in ("mean radius", "mean smoothness")]
radius, smoothness = ((high - low)[missing[:, j], j].mean() / spread[j] for j in columns)
assert radius < 0.6 * smoothness  # its intervals are short
assert moved["holes left open"] < 0.5 * moved["column mean"]
assert accuracy["HEBAE"] >= accuracy["column mean"] > 0.9
assert np.array_equal(expected[~missing], data.data[~missing].astype(expected.dtype))
""",
    "tables/plot_mixed_table": """
assert len(people) == 944
assert list(generated.dtypes) == list(people.dtypes)
for name in people:
    assert set(generated[name]) <= set(people[name]) or name in ("age", "town size (1,000s)")
    if people[name].dtype.kind in "if":
        assert generated[name].between(people[name].min(), people[name].max()).all()
    real = pd.cut(people[name], ranges[name]) if name in ranges else people[name]
    drawn = pd.cut(generated[name], ranges[name]) if name in ranges else generated[name]
    apart = real.value_counts(normalize=True).sub(drawn.value_counts(normalize=True), fill_value=0)
    assert apart.abs().sum() / 2 < 0.1, (name, apart)  # the same distribution
assert matches["real"] > 0.9
assert 0.78 < matches["generated"] < 0.95  # 0.5 if columns did not belong together
assert model.transform(people).shape == (944, 10)
""",
    "tables/plot_conditional_samples": """
assert len(women) == 6366
for kind, given in kinds.items():
    for column, value in given.items():
        assert (generated[kind][column] == value).all()
assert len(real["a professional"]) == 109
young, old = "married for 2.5 years", "married for 23 years"
for rows in (real, generated):
    assert rows[old]["age"].mean() > rows[young]["age"].mean() + 14
    assert rows[old]["children"].mean() > rows[young]["children"].mean() + 2.5
    assert rows["a professional"]["schooling"].mean() > women["schooling"].mean() + 2
for kind in kinds:
    for column in shown:
        apart = abs(real[kind][column].mean() - generated[kind][column].mean())
        assert apart < 0.6 * women[column].std(), (kind, column)
short = [rows["a professional"]["schooling"].mean() for rows in (real, generated)]
assert short[0] - short[1] > 0.5  # as the text admits
""",
    "tables/plot_novelty": """
assert false_alarms < 0.08
assert false_rate < 0.08
assert found > 0.5
assert auroc > 0.93
assert false_share < 0.1
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
scaler = StandardScaler().fit(benign)
near = NearestNeighbors(n_neighbors=5).fit(scaler.transform(benign))
distance = near.kneighbors(scaler.transform(test))[0][:, -1]
assert auroc > roc_auc_score(is_benign, -distance) - 0.02
assert forest_auroc > auroc - 0.01  # ranks them as well
assert alarm_rate > 0.9
known_scores = reader.score_samples(np.vstack([known_later, unseen]))
truth = np.repeat([1, 0], [len(known_later), len(unseen)])
assert roc_auc_score(truth, known_scores) > 0.97
assert "worst area" in blame
assert 0 < blame.sum() < 1
shares = detector.explain(malignant)
assert np.allclose(shares.sum(axis=1), 1)
""",
    "codes/plot_components": """
assert 0.45 < shares[0] < 0.6
assert shares[:2].sum() > 0.65
kept = np.where(np.arange(6) < 2, model.transform(tumours.data), 0)
units = model.fitted_.scaling.scale
lost = np.square((model.inverse_transform(kept) - tumours.data) / units).sum()
total = np.square((tumours.data - tumours.data.mean(axis=0)) / units).sum()
assert abs(1 - lost / total - shares[:2].sum()) < 1e-4  # the sum of the first shares
first = {str(tumours.feature_names[j]) for j in np.argsort(-np.abs(loadings[0]))[:8]}
assert {"mean perimeter", "mean concave points"} <= first  # size and shape
second = {str(tumours.feature_names[j]) for j in np.argsort(-np.abs(loadings[1]))[:3]}
assert all("fractal dimension" in name for name in second)
# What moving along a component changes is what its loadings say, on average.
for k in range(4):
    ends = np.zeros((2, 10))
    ends[:, k] = np.quantile(codes[:, k], [0.05, 0.95])
    change = np.diff(reader.inverse_transform(ends), axis=0)[0]
    assert np.corrcoef(change, reader.components_[k])[0, 1] > 0.9, k
""",
    "codes/plot_collapse": """
assert [report.active.sum() for report in reports.values()] == [10, 4, 10]
words = "dimensions have collapsed"
assert [words in str(report) for report in reports.values()] == [False, True, False]
assert errors["VAE, beta 4"] > 2 * errors["HEBAE, weight 4"]
assert errors["VAE, beta 4"] > 2 * errors["VAE, beta 1"]
variances = np.var(models["VAE, beta 4"].transform(X_test), axis=0)
assert variances[:4].min() > 0.5
assert variances[4:].max() < 0.05  # the collapsed ones come last
whole = np.cov(models["HEBAE, weight 4"].transform(X_test), rowvar=False)
assert np.abs(whole - np.eye(10)).max() < 0.3
""",
    "codes/plot_choose_dimensions": """
errors = {name: np.array(values) for name, values in errors.items()}
assert (np.diff(errors["HEBAE"]) < 0).all()  # every component lowers the error
assert (np.diff(errors["PCA"]) < 0).all()
assert (errors["HEBAE"] < errors["PCA"]).all()
assert abs(errors["HEBAE"][2] - errors["PCA"][3]) < 0.02  # 8 components, and 16 of PCA
assert np.abs(np.array(cut) - errors["PCA"])[:4].max() < 0.05  # near those of PCA
assert cut[-1] == errors["HEBAE"][-1]
""",
    "codes/plot_regularisation_path": """
assert path.best == 0.3
assert path.one_standard_error == 1
gaps = path.train - path.held_out
assert gaps[2] < gaps[1]  # a smaller gap to the training rows
assert (path.generated - path.held_out)[:2].min() > 1.0  # learned by heart, on the left
assert (path.generated - path.held_out)[3:].max() < -1.0
for curve in (path.train, path.held_out, path.generated):
    assert curve[2] > curve[3] > curve[4]  # all scores fall
assert model.score(X) > path.held_out.max()
""",
}
