"""Model files of any class, and what `fit` notes in them about its table."""

from __future__ import annotations

from typing import Any

from skhebae.cli.files import suffix_of
from skhebae.cli.messages import CommandError
from skhebae.estimators import (
    AutoencoderTransformer,
    HEBAETransformer,
    NoveltyDetector,
    VAETransformer,
    WAETransformer,
)
from skhebae.files import read_document

#: Classes by the names that files have for them.
CLASSES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        HEBAETransformer,
        VAETransformer,
        WAETransformer,
        AutoencoderTransformer,
        NoveltyDetector,
    )
}

#: Classes by the names that the option --method has for them.
METHODS = {"hebae": HEBAETransformer, "vae": VAETransformer, "wae": WAETransformer}

#: Attribute of an estimator that keeps how its table was read. Files keep what ends in "_".
NOTED = "command_line_"


def load_model(path: str) -> Any:
    """Read a model, whatever its class.

    Raises
    ------
    CommandError
        If the file does not exist, is damaged, or needs the user's own code.
    """
    try:
        document = read_document(path)
    except ValueError:  # which `load` reports in full
        document = None
    kind = document.get("class") if document else None
    cls = CLASSES.get(kind) if isinstance(kind, str) else None
    if cls is None and isinstance(kind, str):
        raise CommandError(
            f"{path!r} holds a {kind[:80]}, which is a class of your own. Load it in Python."
        )
    try:
        return (cls or HEBAETransformer).load(path)
    except (OSError, ValueError, TypeError) as error:
        hint = " The model comes first, then the table." if suffix_of(path) else ""
        raise CommandError(f"{error}{hint}") from error


def autoencoder_of(model: Any) -> Any:
    """Return the autoencoder of a model, which for a detector is a part of it."""
    return model.autoencoder_ if isinstance(model, NoveltyDetector) else model


def noted(model: Any) -> dict[str, Any]:
    """Return what `fit` noted about its table; nothing for models fitted in Python."""
    found = getattr(autoencoder_of(model), NOTED, {})
    return found if isinstance(found, dict) else {}


def note(model: Any, found: dict[str, Any]) -> None:
    """Keep in a model how its table was read."""
    setattr(autoencoder_of(model), NOTED, found)


def is_of_cells(model: Any) -> bool:
    """Whether a model was fitted to an AnnData."""
    return autoencoder_of(model).fitted_.annotations is not None
