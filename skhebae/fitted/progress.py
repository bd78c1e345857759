"""Progress bars, in a terminal and in a notebook."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any, NamedTuple

from skhebae.fitted.codes import WARNING_FILTERS
from skhebae.process import has_forked

#: Epochs of so many minibatches show that they move, in tenths of an epoch.
LONG_EPOCH = 20


class Callbacks(NamedTuple):
    """What training calls, if anything.

    Attributes
    ----------
    on_epoch : callable
        With the loss of each epoch.
    on_step : callable or None
        With the epochs that are done, and the part of the present one.
    """

    on_epoch: Callable[[float], object]
    on_step: Callable[[float], object] | None = None


SILENT = Callbacks(lambda loss: None)


def find_tqdm() -> Any:
    """Return the class of bars that suits a terminal or a notebook.

    tqdm warns in a notebook without ipywidgets, and shows the bar of a terminal there. That bar
    is good enough, and `verbose=1` no reason to warn.
    """
    from tqdm import TqdmWarning

    with WARNING_FILTERS.held(), warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm

    if has_forked():
        tqdm.set_lock(RLock())  # a thread of the parent may have held the one before
    return tqdm


@contextmanager
def progress_bar(
    name: str,
    *,
    shows: bool,
    n_epochs: int,
    n_minibatches: int,
    n_done: int = 0,
    stays: bool = True,
) -> Iterator[Callbacks]:
    """Yield what training is to call; it moves a bar if that `shows`.

    Parameters
    ----------
    name : str
    shows : bool
    n_epochs, n_minibatches : int
        Epochs of the training, and minibatches per epoch.
    n_done : int
        Epochs that were done before.
    stays : bool
        Whether the bar stays when it is full.
    """
    if not shows:
        yield SILENT
        return
    is_long = n_minibatches >= LONG_EPOCH
    done = "{n:.1f}" if is_long else "{n:.0f}"
    form = f"{{l_bar}}{{bar}}| {done}/{{total_fmt}} [{{elapsed}}<{{remaining}}{{postfix}}]"
    bar = find_tqdm()(
        initial=n_done, total=n_epochs, desc=name, unit="epoch", bar_format=form, leave=stays
    )
    n_ended = n_done

    def on_step(position: float) -> None:
        bar.update(max(0.0, position - bar.n))

    def on_epoch(loss: float) -> None:
        nonlocal n_ended
        n_ended += 1
        bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        bar.update(n_ended - bar.n)

    with bar:
        yield Callbacks(on_epoch, on_step if is_long else None)
        # A rule may have ended the training before its last epoch: that is all there was to do.
        bar.total = n_ended
        if hasattr(bar, "container"):  # the widget of a notebook keeps a total of its own
            bar.container.children[1].max = max(1, n_ended)
        bar.refresh()
