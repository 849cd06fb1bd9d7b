"""Small policies and fake windows, built from the spec, for tests that need no simulator."""

from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from engram.backbones.tiny import Tiny
from engram.data.normalise import Normaliser
from engram.policies.base import Policy
from engram.policies.build import Design, build
from engram.types import Observation, Spec, Window

SPEC = Spec(cameras=("base", "wrist"), height=32, width=32, proprio_dim=7, action_dim=7, control_hz=20.0)
TEXTS = ("touch the red cube", "touch the cube in the colour that was shown", "wait")


def policy(design: Design, seed: int = 0, spec: Spec = SPEC) -> Policy:
    """A policy of a design with a two-layer backbone of width 32 and random weights."""
    torch.manual_seed(seed)
    backbone = Tiny(len(spec.cameras), spec.proprio_dim, width=32, heads=2, layers=2, channels=(16, 16, 16))
    action = Normaliser(torch.zeros(spec.action_dim), torch.ones(spec.action_dim))
    return build(design, spec, action, backbone)


def window(rows: int = 3, ticks: int = 6, chunk: int = 4, seed: int = 0, spec: Spec = SPEC) -> Window:
    """A window of noise in which every row starts an episode at tick 0 and row 1 another one at tick 3."""
    rng = torch.Generator().manual_seed(seed)
    lead = (rows, ticks)
    tick = torch.arange(ticks).expand(lead).clone()
    first = tick == 0
    if rows > 1 and ticks > 3:
        first[1, 3] = True
        tick[1, 3:] -= 3
    images = torch.randint(0, 256, (*lead, len(spec.cameras), spec.height, spec.width, 3), generator=rng)
    return Window(
        obs=Observation(
            images=images.to(torch.uint8),
            proprio=torch.randn(*lead, spec.proprio_dim, generator=rng),
            instruction=tuple(TEXTS[row % len(TEXTS)] for row in range(rows) for _ in range(ticks)),
            tick=tick,
            capture_tick=tick.clone(),
            action=torch.zeros(*lead, spec.action_dim),
        ),
        target=torch.randn(*lead, chunk, spec.action_dim, generator=rng),
        target_ok=torch.ones(*lead, chunk, dtype=torch.bool),
        first=first,
        valid=torch.ones(lead, dtype=torch.bool),
        frame=torch.arange(rows * ticks).view(lead),
    )


def part(whole: Window, rows: Sequence[int], ticks: slice = slice(None)) -> Window:
    """Some rows and ticks of a window, in the order of `rows`."""
    texts = [whole.obs.instruction[row * whole.ticks : (row + 1) * whole.ticks][ticks] for row in rows]
    index = torch.tensor(list(rows))
    obs = replace(whole.obs, instruction=tuple(text for row in texts for text in row), **_cut(whole.obs, index, ticks))
    return replace(whole, obs=obs, **_cut(whole, index, ticks))


def _cut(holder: Observation | Window, index: torch.Tensor, ticks: slice) -> dict[str, torch.Tensor]:
    values = {field.name: getattr(holder, field.name) for field in fields(holder)}
    return {name: value[index][:, ticks] for name, value in values.items() if isinstance(value, torch.Tensor)}
