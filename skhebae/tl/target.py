"""Where results are written to: all that could go wrong there is found before the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

#: Key of what is written for a moment.
PLACEHOLDER = "skhebae (for a moment)"


def check_key(key: str | None, default: str) -> str:
    """Return the key to write to, `default` unless one is given.

    Raises
    ------
    TypeError, ValueError
        If files cannot hold it.
    """
    if key is None:
        return default
    if not isinstance(key, str):
        raise TypeError(f"key_added={key!r} must be a str, for example {default!r}.")
    if "/" in key or key in ("", ".", "..", "_index"):
        raise ValueError(
            f"key_added={key!r} is no key that a file of AnnData can hold. Use one without '/', "
            f"for example {default!r}."
        )
    return key


def check_target(adata: AnnData, *, copy: bool, name: str = "adata") -> None:
    """Refuse to write where it is known to fail.

    Raises
    ------
    ValueError
        If `adata` is backed and would have to be copied; says what to do instead.
    """
    if adata.isbacked and (copy or adata.is_view):
        what = "copy=True would copy it" if copy else "it is a view, which writing would copy"
        raise ValueError(
            f"{name} is backed by the file {str(adata.filename)!r}, and {what} in memory. Pass "
            f"{name}.to_memory(){'' if adata.is_view else ', or leave copy=True out'}."
        )


def target_of(adata: AnnData, *, copy: bool) -> AnnData:
    """Return what is written to: `adata`, an actual object from now on, or a copy of it.

    Warns
    -----
    anndata.ImplicitModificationWarning
        If `adata` is a view.
    """
    if copy:
        return adata.copy()
    if adata.is_view:
        adata.obsm[PLACEHOLDER] = np.zeros((adata.n_obs, 1))  # anndata warns, and copies the view
        del adata.obsm[PLACEHOLDER]
    return adata
