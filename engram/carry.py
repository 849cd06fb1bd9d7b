"""The carry: everything a policy remembers of an episode, as a value.

A carry is a flat `dict[str, Tensor]` of fixed shapes whose first axis is the episode (row). It goes in and comes out
of every call. Keys say their lifetime: `memory/...`, `expert/...`, `skills/...` last for the episode and are what a
snapshot holds, with `count/...`, what was done to them; `now/...` lives from `observe` to the next `act`.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

Carry = dict[str, Tensor]


def _rows(mask_B: Tensor, like: Tensor) -> Tensor:
    return mask_B.view(-1, *[1] * (like.ndim - 1))


def where(mask_B: Bool[Tensor, "B"], yes: Carry, no: Carry) -> Carry:
    """Row by row: `yes` where the mask is True, else `no`. Forgetting is `where(first, init, carry)`."""
    return {key: torch.where(_rows(mask_B, no[key]), yes[key], no[key]) for key in no}


def detach(carry: Carry) -> Carry:
    """The same values without their history: a truncation of backpropagation through time."""
    return {key: value.detach() for key, value in carry.items()}


def stack(carries: Sequence[Carry]) -> Carry:
    """Rows of many sessions (each with its own first axis) as one carry."""
    return {key: torch.cat([carry[key] for carry in carries]) for key in carries[0]}


def unstack(carry: Carry) -> list[Carry]:
    """One carry of a single row per row of `carry`: the inverse of `stack`."""
    batch = next(iter(carry.values())).shape[0] if carry else 0
    return [{key: value[i : i + 1] for key, value in carry.items()} for i in range(batch)]


def select(carry: Carry, *prefixes: str) -> Carry:
    """The entries whose key begins with one of `prefixes`, e.g. `select(carry, "memory/")`."""
    return {key: value for key, value in carry.items() if key.startswith(prefixes)}


def lasting(carry: Carry) -> Carry:
    """All but `now/...`: what a resting session costs and what a snapshot holds."""
    return {key: value for key, value in carry.items() if not key.startswith("now/")}


def scan(step: Callable[[Carry, int], tuple[Carry, Tensor]], carry: Carry, ticks: int) -> tuple[Carry, Tensor]:
    """Run `step(carry, t) -> (carry, out_B...)` for t = 0..ticks-1; outputs stacked on axis 1."""
    outs = []
    for t in range(ticks):
        carry, out = step(carry, t)
        outs.append(out)
    return carry, torch.stack(outs, 1)
