"""The processes that fit one model together, and the shard of a minibatch that each holds."""

from skhebae.distributed.failures import name_lost_process
from skhebae.distributed.group import SINGLE, Group, SingleProcess, TorchGroup
from skhebae.distributed.shards import WHOLE, GatherRows, GroupShard, Shard, WholeMinibatch

__all__ = [
    "SINGLE",
    "WHOLE",
    "GatherRows",
    "Group",
    "GroupShard",
    "Shard",
    "SingleProcess",
    "TorchGroup",
    "WholeMinibatch",
    "name_lost_process",
]
