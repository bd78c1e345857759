"""Derivatives of what follows from a likelihood's parameter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def push_forward(function: Callable[[Tensor], Tensor], at: Tensor, jacobian: Tensor) -> Tensor:
    """Return the Jacobian of ``function(parameter(z))`` by the chain rule, (n, p, d).

    Parameters
    ----------
    function : callable
        Differentiable; maps rows (n, p) to rows (n, p), each on its own.
    at : Tensor of shape (n, p)
        The parameter.
    jacobian : Tensor of shape (n, p, d)
        Its Jacobian.
    """
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        output = function(at)
        # Linear in u, so that its derivatives with respect to u are products with the Jacobian.
        u = torch.zeros_like(output, requires_grad=True)
        (pulled,) = torch.autograd.grad((u * output).sum(), at, create_graph=True)
        columns = [
            torch.autograd.grad((pulled * column).sum(), u, retain_graph=True)[0]
            for column in jacobian.unbind(dim=2)
        ]
    return torch.stack(columns, dim=2)
