"""Where a policy looks: the attention of its memory tokens and of its action slots on the image tokens.

The policy's own passes are listened to, never imitated: what every layer of the slot stream projects gives the queries,
the carry that `observe` returns holds the keys of everything else. Softmax is all that is computed anew.

Legend: B rows, L layers, H heads, Q queries, M keys, D width, E = D/H; C cameras, each a grid of G x G image tokens;
X keys (0) and values (1), as in backbones/streams.py.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from engram.backbones.streams import Layer
from engram.carry import Carry
from engram.policies.through import Through
from engram.types import Observation


class Looks(NamedTuple):
    """Shares of attention on each image cell, rows of the grid from the top, mean over heads and over tokens.

    What is missing to a sum of 1 over a row's cells of all cameras went to proprioception, text and other slots.
    `memory` is None for a policy without one.
    """

    memory: Float[Tensor, "B L C G G"] | None
    action: Float[Tensor, "B L C G G"]


@torch.no_grad()
def look(policy: Through, carry: Carry, obs: Observation, first_B: Bool[Tensor, "B"]) -> Looks:
    """What memory tokens read while `obs` is observed, and what action slots read if a plan were made right after.

    Pure: `carry` is the one that `policy.observe` would be given. Layers in the order of the network.
    """
    layers = cast(list[Layer], list(policy.trunk.backbone.slots.layers))
    with _listening(layers) as heard:
        now = policy.observe(carry, obs, first_B)
        policy.act(now)
    key_BLMD, ok_BM = now["now/kv"][:, :, 0], now["now/ok"]
    asked, acted = heard[: -len(layers)], heard[-len(layers) :]
    # Memory's own keys are among those that `observe` left; an action slot sees the other action slots as well.
    own_BLQD = torch.stack([projected.chunk(3, -1)[1] for projected in acted], 1)
    every_BLMD, every_ok_BM = torch.cat([key_BLMD, own_BLQD], 2), F.pad(ok_BM, (0, own_BLQD.shape[2]), value=True)
    cells = (obs.images.shape[1], *2 * (policy.trunk.backbone.vision.grid,))
    memory = None if policy.memory is None else _on_images(layers, asked, key_BLMD, ok_BM, cells)
    return Looks(memory, _on_images(layers, acted, every_BLMD, every_ok_BM, cells))


def shares(
    layer: Layer, q_BQD: Float[Tensor, "B Q D"], key_BMD: Float[Tensor, "B M D"], ok_BM: Bool[Tensor, "B M"]
) -> Float[Tensor, "B H Q M"]:
    """The weights that `layer.attend` gives the values of these keys: each row sums to 1, and is 0 where not ok."""
    q_BHQE, key_BHME = (t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in (q_BQD, key_BMD))
    score_BHQM = q_BHQE @ key_BHME.mT / q_BHQE.shape[-1] ** 0.5
    return score_BHQM.masked_fill(~ok_BM[:, None, None], -torch.inf).softmax(-1)


def _on_images(
    layers: list[Layer], projected: list[Tensor], key_BLMD: Tensor, ok_BM: Tensor, cells: tuple[int, int, int]
) -> Float[Tensor, "B L C G G"]:
    """Image tokens are the first of all keys, camera by camera."""
    each = zip(layers, projected, key_BLMD.unbind(1), strict=True)
    shares_BLM = torch.stack(
        [shares(layer, made.chunk(3, -1)[0], key_BMD, ok_BM).mean((1, 2)) for layer, made, key_BMD in each], 1
    )
    return shares_BLM[..., : math.prod(cells)].unflatten(-1, cells)


@contextmanager
def _listening(layers: list[Layer]) -> Iterator[list[Tensor]]:
    """Collects what the layers project: queries, keys and values (B,Q,3D) side by side, call after call."""
    heard: list[Tensor] = []
    hooks = [layer.qkv.register_forward_hook(lambda _, __, out: heard.append(out)) for layer in layers]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
