"""Model cards: their values, in valid Markdown, before and after a file or a copy."""

from __future__ import annotations

import copy
import pickle
import platform
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.card
import torch
from sklearn.exceptions import NotFittedError

import skhebae
from skhebae import (
    AutoencoderTransformer,
    HEBAEImputer,
    HEBAETransformer,
    NoveltyDetector,
    VAETransformer,
    WAETransformer,
)
from skhebae.diagnostics import latent_report
from skhebae.estimators.card import LIMITS, LINEAR_LIMIT, show_value
from skhebae.exceptions import LatentWarning
from skhebae.markup import markdown_table, markdown_text
from skhebae.objectives import VAEObjective

markdown_it = pytest.importorskip("markdown_it")

# A few epochs are all that these tests need.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SECTIONS = [
    "Data",
    "Training",
    "Scores",
    "Limits",
    "Versions",
    "How to load it",
    "Licence and citation",
]
NASTY = [
    "a|b",
    "*bold* _it_ __x__",
    "`code` ``",
    "two\nlines",
    "<script>alert(1)</script>",
    "$x$ #1",
]


def text_of(token):
    """Return the text that a reader sees of inline Markdown."""
    return "".join(
        child.content if child.type in ("text", "code_inline", "html_inline") else ""
        for child in token.children
    )


def parse(card):
    """Return the titles and, by the section that they are in, the tables of a card."""
    tokens = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).parse(card)
    titles, tables, row = [], {}, None
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            titles.append(text_of(tokens[i + 1]))
        elif token.type == "table_open":
            tables.setdefault(titles[-1], []).append([])
        elif token.type == "tr_open":
            row = []
        elif token.type in ("th_open", "td_open"):
            row.append(text_of(tokens[i + 1]))
        elif token.type == "tr_close":
            tables[titles[-1]][-1].append(row)
    return titles, tables


def as_dict(table):
    return {name: value for name, value, *_ in table[1:]}


def frame(n_rows=60):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.normal(size=n_rows) for name in NASTY})
    table["colour"] = rng.choice(["red", "UNSEEN|VALUE"], n_rows)
    table.loc[:6, "colour"] = None
    return table


@pytest.mark.parametrize(
    "text", [*NASTY, "[link](http://x)", "a & b &lt;", "~~gone~~", "1\t2", "\\|"]
)
def test_markdown_shows_any_text_as_it_is(text):
    _, tables = parse("# t\n\n" + markdown_table(("name", "number"), [(text, 3)], right=(1,)))
    shown = text.replace("\n", " ").replace("\t", " ")
    assert tables["t"] == [[["name", "number"], [shown, "3"]]]


def test_long_texts_are_cut():
    assert markdown_text("x" * 500) == "x" * 197 + "..."


def test_card_of_every_autoencoder(fitted):
    titles, tables = parse(fitted.card())
    assert titles == [f"Model card: {type(fitted).__name__}", *SECTIONS]
    data = as_dict(tables["Data"][0])
    assert data == {"rows": "240", "columns": "12", "columns with missing values": "0"}
    training = {name: row for name, *row in tables["Training"][0][1:]}
    record = fitted.fitted_.record
    assert training["components"] == ["3", "n_components=3"]
    assert training["epochs"][0].split()[0] == str(fitted.n_iter_)
    assert training["epochs"][1] == "max_iter='auto'"
    assert training["rows per minibatch"] == ["64", "batch_size='auto'"]
    assert training["weight decay"] == [f"{400 / 240:.4g}", "weight_decay='auto'"]
    assert training["learning rate at the start"] == ["0.01", "learning_rate_init='auto'"]
    assert training["precision"] == ["float32", "precision='auto'"]
    assert training["device of the fit"] == [record.used["device"], "device='auto'"]
    assert ("principal components" in training["networks"][0]) == fitted.is_linear_
    assert training["seed"] == [str(fitted.fitted_.seed), ""]
    changed = as_dict(tables["Training"][1])
    assert changed == {"n_components": "3", "hidden_layer_sizes": "(16,)", "random_state": "0"}
    scores = as_dict(tables["Scores"][0])
    for name in ("loss", "reconstruction", "penalty"):
        assert (
            scores[f"{name} in the last epoch"]
            == f"{fitted.history_[name][-1]:.4f} nats per row as training saw it, lower is better"
        )
    assert ("ELBO in the last epoch" in scores) == (type(fitted) is not WAETransformer)
    total = fitted.explained_variance_ratio_.sum()
    assert scores["explained variance"].startswith(f"{total:.3f} (")
    assert (LINEAR_LIMIT in fitted.card()) == fitted.is_linear_
    assert all(limit in fitted.card() for limit in LIMITS)


def test_versions(fitted):
    _, tables = parse(fitted.card())
    head, *rows = tables["Versions"][0]
    assert head == ["", "Fitted with", "Here"]
    found = {name: own for name, *own in rows}
    assert found["skhebae"] == [skhebae.__version__] * 2
    assert found["torch"] == [torch.__version__] * 2
    assert found["python"] == [platform.python_version()] * 2
    assert set(found) == {"skhebae", "torch", "scikit-learn", "numpy", "python"}


def test_scores_of_given_rows(fitted, table):
    card = fitted.card(table[:50])
    _, tables = parse(card)
    head, *rows = tables["Scores"][1]
    assert head[1] == "50 rows given to card(), ± standard error"
    found = {name: value.split()[:3] for name, value in rows}
    scores = fitted.score_samples(table[:50]).astype(np.float64)
    mean, plus, error = found["score (lower bound of log p(x))"]
    assert (mean, plus) == (f"{scores.mean():.4g}", "±")
    assert error == f"{scores.std(ddof=1) / 50**0.5:.2g}"
    assert found["ELBO"][0] == f"{fitted.elbo(table[:50]).mean(dtype=np.float64):.4g}"
    rebuilt = fitted.inverse_transform(fitted.transform(table[:50]))
    standardise = fitted.fitted_.scaling.standardise
    squares = np.square(standardise(rebuilt) - standardise(table[:50])).sum(axis=1)
    shown = float(found["squared reconstruction error"][0])
    assert shown == pytest.approx(squares.mean(), rel=1e-3)


def test_remarks_of_a_report(fitted, table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)
        report = latent_report(fitted, table)
    card = fitted.card(report=report)
    for remark in report.remarks:
        assert markdown_text(remark) in card
    assert ("`latent_report` has no remark." in card) == (not report.remarks)


def test_no_card_before_the_fit(cls):
    with pytest.raises(NotFittedError):
        cls().card()


def test_files_and_copies_have_the_same_card(fitted, tmp_path):
    card = fitted.card()
    assert pickle.loads(pickle.dumps(fitted)).card() == card
    assert copy.deepcopy(fitted).card() == card
    fitted.save(tmp_path / "model")
    loaded = type(fitted).load(tmp_path / "model")
    before, after = parse(card)[1], parse(loaded.card())[1]
    head, *rows = after.pop("Versions")[0]
    assert head == ["", "Fitted with", "Saved with", "Here"]
    assert all(len(set(versions)) == 1 for _, *versions in rows)
    before.pop("Versions")
    assert after == before
    # The parameter of today is not the one of the fit.
    loaded.set_params(max_iter=7)
    assert "max_iter='auto'" in loaded.card()


@pytest.mark.parametrize("name", ["hebae", "vae", "wae"])
def test_what_an_old_file_does_not_hold_is_not_known(name):
    cls = {"hebae": HEBAETransformer, "vae": VAETransformer, "wae": WAETransformer}[name]
    model = cls.load(Path(__file__).parent / "files" / f"{name}-0.1.skhebae")
    _, tables = parse(model.card())
    training = {key: row for key, *row in tables["Training"][0][1:]}
    assert training["rows per minibatch"] == ["not known", ""]
    assert training["epochs"][0].split()[0] == str(model.n_iter_)
    assert as_dict(tables["Data"][0])["columns with missing values"] == "not known"
    head, *rows = tables["Versions"][0]
    assert head == ["", "Fitted with", "Saved with", "Here"]
    assert all(row[1] == "not known" for row in rows)


def test_columns_of_a_mixed_table():
    model = HEBAETransformer(2, max_iter=1, random_state=0).fit(frame())
    card = model.card()
    _, tables = parse(card)
    assert as_dict(tables["Data"][0])["columns with missing values"] == "1"
    head, *rows = tables["Data"][1]
    assert head == ["Column", "Kind", "Family", "Missing values"]
    assert [row[0] for row in rows] == [name.replace("\n", " ") for name in frame().columns]
    assert rows[-1] == ["colour", "text", "categorical", "7"]
    assert rows[0][1:] == ["float", "binned", "0"]
    assert "UNSEEN" not in card  # no value of the table
    assert "<script>" not in card


def test_names_and_missing_values_of_numbers():
    X = frame()[NASTY]
    X.iloc[:3, 1] = np.nan
    model = HEBAETransformer(2, max_iter=1, random_state=0, likelihood="gaussian").fit(X)
    model.partial_fit(X)
    _, tables = parse(model.card())
    # Both calls count.
    assert [row[-1] for row in tables["Data"][1][1:]] == ["0", "6", "0", "0", "0", "0"]
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 60))).add_prefix("c")
    card = HEBAETransformer(2, max_iter=1).fit(wide).card()
    assert len(parse(card)[1]["Data"][1]) == 51
    assert "And 10 more columns." in card


def test_card_of_the_detector(table, brief):
    base = HEBAETransformer(**brief)
    detector = NoveltyDetector(base, calibration=0.25, random_state=0).fit(table)
    titles, tables = parse(detector.card(table[:20]))
    assert titles == ["Model card: NoveltyDetector", *SECTIONS]
    own = {name: row for name, *row in tables["Training"][0][1:]}
    assert own["novelty score"] == ["neighbours", "novelty_score='auto'"]
    assert own["rows scored for p-values"] == ["60", "calibration=0.25"]
    assert own["a row is a novelty if"] == ["its p-value is at most alpha", "alpha=0.05"]
    assert as_dict(tables["Data"][0])["rows"] == "180"
    scores = as_dict(tables["Scores"][1])
    assert scores["p-value"].split()[0] == f"{detector.p_values(table[:20]).mean():.4g}"
    share = (detector.predict(table[:20]) == -1).mean()
    assert scores["share called novelties"].split()[0] == f"{share:.4g}"
    assert "p_values = model.p_values(X)" in detector.card()
    assert pickle.loads(pickle.dumps(detector)).card() == detector.card()
    detector.set_params(contamination=0.1)
    assert "among the strangest 0.1 of the rows" in detector.card()


def test_card_of_the_imputer(table, brief):
    X = table.copy()
    X[:5, 2] = np.nan
    imputer = HEBAEImputer(HEBAETransformer(**brief)).fit(X)
    titles, tables = parse(imputer.card(X[:9]))
    assert titles[0] == "Model card: HEBAEImputer"
    assert as_dict(tables["Data"][0])["columns with missing values"] == "1"
    assert "joblib.load" in imputer.card()
    assert pickle.loads(pickle.dumps(imputer)).card() == imputer.card()


class Objective(VAEObjective):
    pass


def test_card_of_code_of_the_users(table, brief, tmp_path):
    model = AutoencoderTransformer(objective=Objective, **brief).fit(table)
    card = model.card()
    load = 'model = AutoencoderTransformer.load("model.skhebae", objective=Objective)'
    assert load in card
    assert "Import Objective first." in card
    model.save(tmp_path / "model")
    assert load in AutoencoderTransformer.load(tmp_path / "model", objective=Objective).card()


class Mine(HEBAETransformer):
    """A subclass of a user's."""


def test_card_of_a_subclass(table, brief):
    card = Mine(**brief).fit(table).card()
    assert card.startswith("# Model card: Mine\n")
    assert f"from {Mine.__module__} import Mine\n" in card
    assert "arXiv:2007.10389" in card


@pytest.mark.parametrize("kind", ["hebae", "vae", "wae", "detector", "imputer", "own"])
def test_the_loading_code_runs(kind, table, brief, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = {
        "hebae": HEBAETransformer(**brief),
        "vae": VAETransformer(**brief),
        "wae": WAETransformer(**brief),
        "detector": NoveltyDetector(HEBAETransformer(**brief), calibration=0.25, random_state=0),
        "imputer": HEBAEImputer(HEBAETransformer(**brief)),
        "own": AutoencoderTransformer(objective=Objective, **brief),
    }
    model = models[kind].fit(table)
    if hasattr(model, "save"):
        model.save("model.skhebae")
    else:
        import joblib

        joblib.dump(model, "model.joblib")
    code = model.card().split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 3
    names = {"X": table, "Objective": Objective}
    exec(code, names)
    assert type(names["model"]) is type(model)
    (found,) = set(names) - {
        "X",
        "Objective",
        "model",
        "joblib",
        "__builtins__",
        type(model).__name__,
    }
    assert len(names[found]) == len(table)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.random.RandomState(0), "a RandomState"),
        (np.float64(0.5), "0.5"),
        ({"a": "binned"}, "{a: 'binned'}"),
        ({f"column {i}": "binned" for i in range(20)}, "a mapping of 20 items"),
        (Objective, "Objective"),
        ("x" * 200, "'" + "x" * 76 + "..."),
    ],
)
def test_values_of_parameters(value, shown):
    assert show_value(value) == shown


def test_batches(table, brief):
    batch = np.arange(len(table)) % 2
    model = HEBAETransformer(**brief).fit(table, batch=batch)
    _, tables = parse(model.card(table[:9], batch=batch[:9]))
    assert as_dict(tables["Data"][0])["experimental batches"] == "2"
    with pytest.raises(ValueError, match="batch"):
        model.card(table[:9])


def test_a_card_of_skops_takes_it(fitted):
    card = skops.card.Card(fitted)
    card.add(skhebae=fitted.card())
    rendered = card.render()
    assert "Model card: " + type(fitted).__name__ in rendered
    assert "| n_components" in rendered


def test_a_record_from_a_file_is_checked(fitted):
    packed = fitted.fitted_.record.pack()
    check = type(fitted.fitted_.record).check
    check(packed)
    for name, bad in {
        "asked": {"max_iter": [1]},
        "used": {"device": "x" * 2000},
        "n_processes": "two",
        "n_missing": [-1],
        "fitted_with": "0.1",
    }.items():
        with pytest.raises(ValueError, match="record of training"):
            check({**packed, name: bad})
    with pytest.raises(ValueError, match="not a dict"):
        check(None)
