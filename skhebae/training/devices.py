"""Where to compute and in which precision to train."""

from __future__ import annotations

import os
from typing import Any

import torch

#: Below this number of weights, casting to bfloat16 takes longer than the product saves
#: (docs/benchmarks-defaults.md).
BFLOAT16_WEIGHTS = 2**16


def resolve_device(name: str) -> torch.device:
    """Turn the parameter `device` into a torch device that works here.

    Parameters
    ----------
    name : str
        "auto" (CUDA if present, else the CPU), "cpu", "cuda", "cuda:1" or "mps". Where a
        launcher has numbered the processes on this machine (LOCAL_RANK), "auto" gives
        each its own GPU.

    Raises
    ------
    ValueError
        If the name is unknown or the device is not on this machine.
    """
    if name == "auto":
        return automatic_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(
            f"device={name!r} is not a device that skhebae knows. "
            "Use 'auto', 'cpu', 'cuda', 'cuda:<index>' or 'mps'."
        )
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[device.type]
    if (device.index or 0) >= present:
        raise ValueError(
            f"device={name!r} was asked for, but torch sees {present} such device(s) here. "
            "Use device='auto' to take what there is."
        )
    return device


def automatic_device() -> torch.device:
    """Return the GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK", "")
    if local_rank.isdecimal() and int(local_rank) < torch.cuda.device_count():
        return torch.device("cuda", int(local_rank))
    return torch.device("cuda")


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware.

    CUDA from compute capability 8.0; a CPU with avx512_bf16 or AMX.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Public since torch 2.11; without it, float32 is the safe answer.
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def resolve_precision(name: str, device: torch.device, largest_layer: int) -> torch.dtype:
    """Turn the parameter `precision` into the dtype of the matrix products.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16"}
        "auto" is bfloat16 where the processor multiplies it natively and the largest
        layer has at least `BFLOAT16_WEIGHTS` weights.
    device : torch.device
    largest_layer : int
        Number of weights of the largest layer.
    """
    if name == "auto":
        worth_it = largest_layer >= BFLOAT16_WEIGHTS and has_native_bfloat16(device)
        name = "bfloat16" if worth_it else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
