"""Checks of what a document holds, so that nothing is built of what cannot be right."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_floats(value: Any, name: str, shape: tuple[int, ...], *, above: float = -np.inf) -> None:
    """Check that a value is an array of finite float64 numbers.

    Parameters
    ----------
    value : object
    name : str
        What messages call it.
    shape : tuple of int
    above : float
        Bound that all its numbers must exceed.

    Raises
    ------
    ValueError
        Naming what is wrong with it.
    """
    check_array(value, name, shape, np.dtype(np.float64))
    if not (np.isfinite(value) & (value > above)).all():
        raise ValueError(f"{name} has numbers that are not finite{'' if above < 0 else ' and > 0'}")


def check_array(value: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that a value is an array of a shape and a data type.

    Raises
    ------
    ValueError
        Naming what is wrong with it.
    """
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is {type(value).__name__}, not an array")
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(
            f"{name} has shape {value.shape} and dtype {value.dtype}, not {shape} and {dtype}"
        )


def check_integer(value: Any, name: str, low: int, high: int = 2**63) -> None:
    """Check that a value is an integer from `low` to below `high`.

    Raises
    ------
    ValueError
        Naming what is wrong with it.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
        raise ValueError(f"{name} is no integer from {low} to below {high}")


def check_like(value: Any, template: Any, name: str) -> None:
    """Check that a value has the structure of another: keys, types, shapes and data types.

    Raises
    ------
    ValueError
        Naming what differs.
    """
    if isinstance(template, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {type(value).__name__}, not a dict")
        for key in sorted({*template, *value}):
            if key not in value or key not in template:
                raise ValueError(f"{name} {'has' if key in value else 'lacks'} {str(key)[:80]!r}")
            check_like(value[key], template[key], f"{name}.{key}")
    elif isinstance(template, np.ndarray):
        check_array(value, name, template.shape, template.dtype)
    elif isinstance(template, int) and not isinstance(template, bool):
        check_integer(value, name, 0)
    elif type(value) is not type(template):
        raise ValueError(f"{name} is {type(value).__name__}, not {type(template).__name__}")
