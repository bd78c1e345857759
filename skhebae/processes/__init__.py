"""The processes that fit one model together, and what each has of a minibatch."""

from skhebae.processes.group import ALONE, Alone, Group, Processes
from skhebae.processes.losses import losses_named
from skhebae.processes.parts import WHOLE, GatherRows, Part, Share, Whole

__all__ = [
    "ALONE",
    "WHOLE",
    "Alone",
    "GatherRows",
    "Group",
    "Part",
    "Processes",
    "Share",
    "Whole",
    "losses_named",
]
