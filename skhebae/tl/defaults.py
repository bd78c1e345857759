"""Defaults that stand for what a call finds; no layer, column or batch can be called the same."""

from __future__ import annotations

from enum import Enum


class Default(Enum):
    """A default that is no value of its own. Its text is what signatures show."""

    AS_FITTED = "as fitted"
    IF_PRESENT = "highly_variable if present"

    def __repr__(self) -> str:
        return f"<{self.value}>"


#: As it was in the fit.
AS_FITTED = Default.AS_FITTED

#: The column ``var["highly_variable"]``, if there is one.
IF_PRESENT = Default.IF_PRESENT
