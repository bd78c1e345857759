"""What was fitted and what `fit` chose, as one list that text, HTML and model cards show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from skhebae.fitted.build import factory_name
from skhebae.fitted.record import TrainingRecord
from skhebae.markup import html_table, one_line

if TYPE_CHECKING:
    from skhebae.fitted.autoencoder import FittedAutoencoder

#: What a summary says of a value that a file does not hold.
UNKNOWN = "not known"

#: What the terms of the history are called.
LOSSES = {
    "loss": "loss",
    "reconstruction": "reconstruction",
    "penalty": "penalty",
    "elbo": "ELBO",
    "validation_loss": "validation loss",
}

#: Most components whose explained variance is listed.
SHOWN_COMPONENTS = 10

#: Head of the table.
HEAD = ("", "fitted", "parameter")


class Fact(NamedTuple):
    """One line of a summary.

    Attributes
    ----------
    name : str
    value : str
        As it is in the fitted model, with its unit.
    parameter : str
        The parameter behind it and its value in the constructor, such as "max_iter='auto'"; ""
        where there is none, or it is not known.
    """

    name: str
    value: str
    parameter: str = ""


@dataclass(frozen=True, eq=False)
class FitSummary:
    """What was fitted and what `fit` chose.

    `FittedAutoencoder.summary` returns one. ``print(summary)`` shows it as text and a notebook as
    a table.

    Attributes
    ----------
    model, training, scores : tuple of Fact
        What was fitted, how, and how well.
    """

    model: tuple[Fact, ...]
    training: tuple[Fact, ...]
    scores: tuple[Fact, ...]

    @property
    def facts(self) -> tuple[Fact, ...]:
        """All lines."""
        return self.model + self.training + self.scores

    def to_dict(self) -> dict[str, str]:
        """Return the values as text, by name.

        Returns
        -------
        dict of str to str
        """
        return {fact.name: fact.value for fact in self.facts}

    def __repr__(self) -> str:
        facts = [Fact(*map(one_line, fact)) for fact in self.facts]
        names, values = (max(len(fact[i]) for fact in facts) for i in range(2))
        return "\n".join(
            f"{name:<{names}}  {value:<{values}}  {parameter}".rstrip()
            for name, value, parameter in facts
        )

    def _repr_html_(self) -> str:
        return html_table(HEAD, self.facts)


def summarise(fitted: FittedAutoencoder) -> FitSummary:
    """List what was fitted and what `fit` chose."""
    record = fitted.record
    return FitSummary(
        model_facts(fitted, record), training_facts(fitted, record), score_facts(fitted)
    )


def asked(record: TrainingRecord | None, name: str) -> str:
    """Write a parameter as it was set, if that is known."""
    if record is None or name not in record.asked:
        return ""
    return f"{name}={record.asked[name]!r}"


def model_facts(fitted: FittedAutoencoder, record: TrainingRecord | None) -> tuple[Fact, ...]:
    """List what was fitted."""
    architecture, columns = fitted.architecture, fitted.columns
    likelihood = str(factory_name(architecture.likelihood))
    if columns is not None:
        likelihood = f"a family for each of {len(columns)} columns"
    facts = [
        Fact("rows", count(fitted.moments.n_rows)),
        Fact("features", count(fitted.n_features)),
        Fact("components", count(fitted.n_components), asked(record, "n_components")),
        Fact("likelihood", likelihood, asked(record, "likelihood")),
        Fact("prior", "N(0, I)" if fitted.prior.is_standard else type(fitted.prior).__name__),
        Fact("networks", describe_networks(fitted), asked(record, "linear_path")),
    ]
    share = getattr(fitted.objective, "row_share", None)
    if share is not None:
        facts.append(Fact("row share of the penalty", f"{share:g}", asked(record, "row_share")))
    if architecture.tilt is not None:
        facts.append(Fact("tilt of the prior", f"{architecture.tilt:.4g}", asked(record, "tilt")))
    if len(fitted.batches):
        facts.append(Fact("experimental batches", count(len(fitted.batches))))
    return tuple(facts)


def describe_networks(fitted: FittedAutoencoder) -> str:
    """Say what maps rows to codes and back."""
    architecture = fitted.architecture
    own = [
        f"{name} {factory_name(getattr(architecture, name))}"
        for name in ("encoder", "decoder")
        if getattr(architecture, name) is not None
    ]
    if own:
        return "your own " + " and ".join(own)
    hidden = ", ".join(map(str, architecture.hidden_layer_sizes))
    if not hidden:
        return "linear"
    if fitted.model.is_linear:
        return "linear (principal components; hidden layers unused)"
    kind = f"hidden layers ({hidden}), {architecture.activation}"
    return f"linear path and {kind}" if architecture.linear_path else kind


def training_facts(fitted: FittedAutoencoder, record: TrainingRecord | None) -> tuple[Fact, ...]:
    """List how it was fitted."""
    history = fitted.history
    n_epochs = len(history["loss"])
    used: dict[str, Any] = {} if record is None else record.used
    epochs = count(n_epochs)
    if isinstance(used.get("max_iter"), int) and used["max_iter"] > n_epochs:
        epochs += f" of at most {used['max_iter']}"
    if fitted.converged:
        epochs += ", converged"
    facts = [Fact("epochs", epochs, asked(record, "max_iter"))]
    shown = {
        "batch_size": ("rows per minibatch", "{:,}"),
        "learning_rate_init": ("learning rate at the start", "{:g}"),
        "weight_decay": ("weight decay", "{:.4g}"),
        "input_noise": ("input noise", "{:.4g}"),
        "input_dropout": ("input dropout", "{:.4g}"),
        "precision": ("precision", "{}"),
        "device": ("device of the fit", "{}"),
    }
    for key, (name, form) in shown.items():
        value = form.format(used[key]) if key in used else UNKNOWN
        facts.append(Fact(name, value, asked(record, key)))
    if record is not None and record.n_processes > 1:
        facts.append(Fact("processes", str(record.n_processes)))
    facts.append(Fact("seed", str(fitted.seed)))
    seconds = history.get("seconds", [])
    if seconds and all(map(math.isfinite, seconds)):
        facts.append(Fact("seconds in epochs", f"{sum(seconds):.3g}"))
    return tuple(facts)


def score_facts(fitted: FittedAutoencoder) -> tuple[Fact, ...]:
    """List what the fit knows of how well it did."""
    facts = []
    for key, name in LOSSES.items():
        values = fitted.history.get(key, [])
        if values and math.isfinite(values[-1]):
            better = "higher" if key == "elbo" else "lower"
            told = f"{values[-1]:.4f} nats per row as training saw it, {better} is better"
            facts.append(Fact(f"{name} in the last epoch", told))
    if fitted.axes is not None:
        shares = fitted.axes.explained_variance_ratio
        joined = ", ".join(f"{share:.3f}" for share in shares[:SHOWN_COMPONENTS])
        joined += ", ..." if len(shares) > SHOWN_COMPONENTS else ""
        facts.append(Fact("explained variance", f"{float(shares.sum()):.3f} ({joined})"))
    return tuple(facts)


def count(number: float) -> str:
    """Write a number of things, or a summed weight."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.6g}"
