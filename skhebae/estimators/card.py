"""Model cards: what a fitted estimator is, how it was fitted and what it is not for, in Markdown.

Plain Markdown, so that a card needs no further package and reads well as text. A card of skops
takes it section by section: ``skops.card.Card(model)`` works for all estimators, and
``card.add(**{"Model card": model.card()})`` puts ours into it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from skhebae.fitted.build import FACTORIES, factory_name
from skhebae.fitted.held_out import RowScore
from skhebae.fitted.record import versions
from skhebae.fitted.summary import UNKNOWN, Fact, FitSummary, count
from skhebae.likelihoods import likelihood_name
from skhebae.markup import markdown_table, markdown_text

if TYPE_CHECKING:
    from skhebae.estimators.base import BaseAutoencoder
    from skhebae.fitted import FittedAutoencoder

#: Most columns that a card lists.
SHOWN_COLUMNS = 50

#: Longest value of a parameter.
LONGEST_VALUE = 80

#: What the classes are for.
PURPOSES = {
    "HEBAETransformer": (
        "A hierarchical empirical Bayes autoencoder. It maps rows of a table to codes of a few "
        "dimensions and back, fills in missing values, generates rows and scores them."
    ),
    "VAETransformer": (
        "A variational autoencoder. It maps rows of a table to codes of a few dimensions and "
        "back, fills in missing values, generates rows and scores them."
    ),
    "WAETransformer": (
        "A Wasserstein autoencoder. It maps rows of a table to codes of a few dimensions and "
        "back, fills in missing values, generates rows and scores them."
    ),
    "AutoencoderTransformer": (
        "An autoencoder with an objective, a likelihood or a prior of its author's own. It maps "
        "rows of a table to codes of a few dimensions and back."
    ),
    "NoveltyDetector": (
        "A novelty detector. It scores how strange rows are compared with the rows of the fit, "
        "and turns scores into p-values."
    ),
    "HEBAEImputer": "An imputer. It fills in missing values of a table by their expected values.",
}

#: The papers of the methods.
PAPERS = {
    "HEBAETransformer": (
        "W. Cheng, G. Darnell, S. Ramachandran and L. Crawford, *Generalizing Variational "
        "Autoencoders with Hierarchical Empirical Bayes*, arXiv:2007.10389"
    ),
    "VAETransformer": (
        "D. P. Kingma and M. Welling, *Auto-Encoding Variational Bayes*, arXiv:1312.6114"
    ),
    "WAETransformer": (
        "I. Tolstikhin, O. Bousquet, S. Gelly and B. Schölkopf, *Wasserstein Auto-Encoders*, "
        "arXiv:1711.01558"
    ),
    "NoveltyDetector": (
        "S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia, *Testing for outliers with "
        "conformal p-values*, arXiv:2104.08279"
    ),
}

#: What no autoencoder must be used for.
LIMITS = (
    "Generated rows give no privacy. They can resemble rows of the training data, so do not "
    "publish them in place of rows that you may not publish.",
    "The model knows the ranges that it saw in `fit`. Codes, scores and reconstructions of rows "
    "outside them are unreliable. A `NoveltyDetector` finds such rows; an `OutOfRangeWarning` "
    "appears only very far outside.",
    "Missing values are taken to be missing at random: whether a value is missing may depend on "
    "observed values of the row, but not on the missing value itself.",
    "Scores in nats compare rows of one table, or models of the same table in the same units. "
    "They are not comparable between tables.",
    "Nothing here says how the model treats groups of people. Test that before you use it in "
    "decisions about them.",
)
MIXED_LIMIT = (
    "A category that `fit` did not see counts as a missing value. The model file holds single "
    "values of columns of numbers and dates, all of them if there are fewer than about 500 rows."
)
LINEAR_LIMIT = (
    "Codes of this model are linear in the rows: hidden layers did not pay off on held-out rows."
)
DETECTOR_LIMITS = (
    "p-values hold for rows that are drawn like the rows of `fit`. If the source of the rows "
    "changes over time, fit again.",
    "A novelty is a row that is unlike those of `fit`. It need not be an error, a fraud or a "
    "disease.",
)


def model_card(
    estimator: Any,
    model: BaseAutoencoder,
    scores: Sequence[RowScore] = (),
    n_scored: int = 0,
    *,
    report: Any = None,
    own_facts: Sequence[Fact] = (),
    own_limits: Sequence[str] = (),
) -> str:
    """Write the card of an estimator.

    Parameters
    ----------
    estimator : estimator
        The one that the card is about.
    model : BaseAutoencoder
        Its autoencoder, perhaps itself.
    scores : sequence of RowScore
        Of rows that the caller has given.
    n_scored : int
        Number of these rows.
    report : LatentReport, optional
        Its remarks are listed.
    own_facts : sequence of Fact
        Further facts of an estimator around an autoencoder.
    own_limits : sequence of str
    """
    fitted = model.fitted_
    summary = fitted.summary()
    sections = {
        "Data": data_section(model),
        "Training": training_section(model, summary, own_facts),
        "Scores": scores_section(summary, scores, n_scored, report),
        "Limits": limits_section(fitted, own_limits),
        "Versions": versions_section(fitted),
        "How to load it": loading_section(estimator, model),
        "Licence and citation": licence_section(estimator, model),
    }
    name = type(estimator).__name__
    lines = [f"# Model card: {markdown_text(name)}", purpose(estimator)]
    for title, text in sections.items():
        lines += [f"## {title}", text]
    return "\n\n".join(lines) + "\n"


def purpose(estimator: Any) -> str:
    """Say in a sentence or two what an estimator is for."""
    classes = [cls.__name__ for cls in type(estimator).__mro__]
    known = next((name for name in classes if name in PURPOSES), "AutoencoderTransformer")
    module = type(estimator).__module__
    where = "skhebae" if module.split(".")[0] == "skhebae" else module
    return f"{PURPOSES[known]}\n\nClass: {markdown_text(f'{where}.{classes[0]}')}"


def data_section(model: BaseAutoencoder) -> str:
    """Describe the shape and the columns of the table, but none of its values."""
    fitted, record = model.fitted_, model.fitted_.record
    n_missing = None if record is None else record.n_missing
    if record is None:
        missing = UNKNOWN
    else:
        missing = count(0 if n_missing is None else sum(number > 0 for number in n_missing))
    rows = [
        ("rows", count(fitted.moments.n_rows)),
        ("columns", count(fitted.n_features if fitted.columns is None else len(fitted.columns))),
        ("columns with missing values", missing),
    ]
    if len(fitted.batches):
        rows.append(("experimental batches", count(len(fitted.batches))))
    parts = [markdown_table(("", "Table of the fit"), rows)]
    described = describe_columns(model, n_missing)
    if described is not None:
        head, lines = described
        parts.append(markdown_table(head, lines[:SHOWN_COLUMNS], right=(len(head) - 1,)))
        if len(lines) > SHOWN_COLUMNS:
            parts.append(f"And {len(lines) - SHOWN_COLUMNS:,} more columns.")
    parts.append("This card holds no row and no value of the table.")
    return "\n\n".join(parts)


def describe_columns(
    model: BaseAutoencoder, n_missing: list[int] | None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Return the head and the lines of the table of columns, if they have names or families."""
    fitted = model.fitted_
    columns, names = fitted.columns, fitted.names

    def missing(j: int) -> str:
        return count(0 if n_missing is None else n_missing[j])

    if columns is not None:
        lines: list[tuple[str, ...]] = [
            (str(c.name), c.kind, likelihood_name(c.family), missing(j))
            for j, c in enumerate(columns.items)
        ]
        return ("Column", "Kind", "Family", "Missing values"), lines
    if names is None:
        return None
    return ("Column", "Missing values"), [(str(n), missing(j)) for j, n in enumerate(names)]


def training_section(model: BaseAutoencoder, summary: FitSummary, own_facts: Sequence[Fact]) -> str:
    """Tell parameters, what "auto" stood for, and how training ended."""
    parts = []
    if own_facts:
        parts.append(markdown_table(("", "Fitted", "Parameter as set"), own_facts))
        parts.append(f"Its autoencoder is a {markdown_text(type(model).__name__)}.")
    parts.append(
        markdown_table(("", "Fitted", "Parameter as set"), [*summary.model, *summary.training])
    )
    changed = changed_parameters(model)
    if changed:
        parts.append("Parameters that differ from their defaults:")
        parts.append(markdown_table(("Parameter", "Value"), changed))
    else:
        parts.append("All parameters have their defaults.")
    return "\n\n".join(parts)


def changed_parameters(estimator: Any) -> list[tuple[str, str]]:
    """Return the parameters that differ from their defaults, with their values as text."""
    defaults = {
        name: parameter.default for name, parameter in signature(type(estimator)).parameters.items()
    }
    values = estimator.get_params(deep=False)
    return [
        (name, show_value(value))
        for name, value in values.items()
        if show_value(value) != show_value(defaults.get(name))
    ]


def show_value(value: Any) -> str:
    """Write the value of a parameter; code and generators of random numbers by their names."""
    if isinstance(value, Mapping):
        shown = ", ".join(f"{key}: {show_value(of)}" for key, of in value.items())
        return f"{{{shown}}}" if len(shown) < LONGEST_VALUE else f"a mapping of {len(value)} items"
    if isinstance(value, np.random.RandomState):
        return "a RandomState"
    if callable(value):
        return str(factory_name(value))
    text = repr(value.item() if isinstance(value, np.generic) else value)
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def scores_section(
    summary: FitSummary, scores: Sequence[RowScore], n_scored: int, report: Any
) -> str:
    """Tell the scores that the fit knows, and those of rows that the caller has given."""
    rows = [(fact.name, fact.value) for fact in summary.scores]
    parts = [markdown_table(("", "Rows of the fit"), rows)]
    if n_scored:
        head = ("", f"{n_scored:,} rows given to card(), ± standard error")
        parts.append(markdown_table(head, [(score.name, score.text) for score in scores]))
    if report is not None:
        remarks = [f"- {markdown_text(text)}" for text in report.remarks]
        parts.append("Remarks of `latent_report`:" if remarks else "`latent_report` has no remark.")
        parts += ["\n".join(remarks)] if remarks else []
    return "\n\n".join(parts)


def limits_section(fitted: FittedAutoencoder, own: Sequence[str]) -> str:
    """Say what the model must not be used for."""
    limits = [*own, *LIMITS]
    if fitted.columns is not None:
        limits.append(MIXED_LIMIT)
    if fitted.model.is_linear:
        limits.append(LINEAR_LIMIT)
    return "\n".join(f"- {text}" for text in limits)


def versions_section(fitted: FittedAutoencoder) -> str:
    """Compare the versions of the fit, of the file and of this process."""
    record, here = fitted.record, versions()
    known = {
        "Fitted with": None if record is None else record.fitted_with,
        "Saved with": None if record is None else record.saved_with,
        "Here": here,
    }
    if record is not None and record.saved_with is None:
        del known["Saved with"]
    rows = [
        (name, *(UNKNOWN if of is None else of.get(name, UNKNOWN) for of in known.values()))
        for name in here
    ]
    return markdown_table(("", *known), rows)


def loading_section(estimator: Any, model: BaseAutoencoder) -> str:
    """Show how to load a saved estimator and to use it."""
    cls = type(estimator)
    is_ours = cls.__module__.split(".")[0] == "skhebae"
    module = "skhebae" if is_ours else cls.__module__
    use = next(
        (
            line
            for method, line in {
                "p_values": "p_values = model.p_values(X)",
                "autoencoder_": "X_complete = model.transform(X)",
                "transform": "codes = model.transform(X)",
            }.items()
            if hasattr(estimator, method)
        )
    )
    if not hasattr(cls, "load"):
        note = "It has no file format of its own. Load pickles only from sources that you trust."
        lines = ["import joblib", 'model = joblib.load("model.joblib")', use]
        return f"{note}\n\n```python\n" + "\n".join(lines) + "\n```"
    own = own_code(model)
    given = "".join(f", {name}={value}" for name, value in own.items())
    lines = [
        f"from {module} import {cls.__name__}",
        f'model = {cls.__name__}.load("model.skhebae"{given})',
        use,
    ]
    text = "```python\n" + "\n".join(lines) + "\n```"
    if own:
        names = ", ".join(markdown_text(value) for value in own.values())
        text += f"\n\nA file holds no code. Import {names} first."
    return text


def own_code(model: BaseAutoencoder) -> dict[str, str]:
    """Return the arguments that `load` needs, where the user's code took part in the fit."""
    architecture, params = model.fitted_.architecture, model.get_params(deep=False)
    own: dict[str, Any] = {name: getattr(architecture, name) for name in FACTORIES}
    own["objective"] = params.get("objective")
    if callable(architecture.likelihood):
        own["likelihood"] = architecture.likelihood
    names = {name: str(factory_name(value)) for name, value in own.items() if value is not None}
    columns = model.fitted_.columns
    families = {} if columns is None else {c.name: c.family for c in columns.items}
    classes = {name: family for name, family in families.items() if callable(family)}
    if classes:
        items = (f"{name!r}: {factory_name(family)}" for name, family in classes.items())
        names["likelihood"] = "{" + ", ".join(items) + "}"
    return {name: value for name, value in names.items() if "\n" not in value}


def licence_section(estimator: Any, model: BaseAutoencoder) -> str:
    """Name the licence of the library and what to cite."""
    classes = [cls.__name__ for own in (estimator, model) for cls in type(own).__mro__]
    papers = [PAPERS[name] for name in dict.fromkeys(classes) if name in PAPERS]
    cite = "Cite skhebae" + "".join(f", and {paper}" for paper in papers) + "."
    return (
        "skhebae has the BSD-3-Clause licence. The licence of this model is for its author to "
        "state, and may depend on the training data.\n\n" + cite
    )
