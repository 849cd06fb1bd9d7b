"""What training begins with: an untrained policy for a data set, on shipped weights or on random ones."""

import torch

from engram.backbones import tiny
from engram.data.lerobot import Dataset
from engram.data.normalise import Normaliser
from engram.policies.before import Before
from engram.policies.build import build
from engram.policies.design import Design
from engram.policies.through import Through
from engram.settings import Settings
from engram.types import Spec

ACTION_FLOOR = 0.1  # least standard deviation of an action dimension, in the environment's units ([-1, 1])
PROPRIO_FLOOR = 0.01  # metres, radians


def new_policy(data: Dataset, design: Design, settings: Settings) -> Through | Before:
    """An untrained policy for the data set: weights of the shipped backbone or random ones, actions normalised."""
    torch.manual_seed(settings.seed)
    backbone = None
    if settings.start == "pretrained":
        if design.size != "s":
            do = "use it, or --settings.start scratch"
            raise ValueError(f"size {design.size}: expected 's', the size whose weights ship; {do}")
        weights = tiny.MIKASA if data.robot in tiny.MIKASA_ROBOTS else tiny.PACKAGED
        backbone = tiny.pretrained(weights)
        _require_as_pretrained(backbone, tiny.SIDES[weights], data.spec)
    if design.notes and backbone is None:
        raise ValueError("notes: expected pretrained weights, found a start from scratch; use --design.no-notes")
    policy = build(design, data.spec, Normaliser.fit(torch.from_numpy(data.action), ACTION_FLOOR), backbone)
    if backbone is None:
        proprio = Normaliser.fit(torch.from_numpy(data.state), PROPRIO_FLOOR)
        policy.trunk.backbone.calibrate(proprio.mean, proprio.std)
        if design.trained != "all":
            raise ValueError(f"trained {design.trained}: expected 'all' for a backbone that starts from scratch")
    return policy


def _require_as_pretrained(backbone: tiny.Tiny, side: int, spec: Spec) -> None:
    """ValueError unless the data set shows what the shipped weights know: these cameras, this size, this pose."""
    expected = (tiny.CAMERAS, side, side, len(backbone.proprio_mean))
    found = (spec.cameras, spec.height, spec.width, spec.proprio_dim)
    if expected != found:
        said = "cameras {}, pictures of {} x {} and {} numbers of proprioception"
        raise ValueError(
            f"pretrained weights: expected {said.format(*expected)}, found {said.format(*found)}; "
            "use another data set, or --settings.start scratch --design.trained all"
        )
