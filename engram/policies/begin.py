"""What training begins with: a policy for a data set, on shipped weights, on random ones or on a checkpoint's."""

from dataclasses import asdict

import torch

from engram.backbones import tiny
from engram.data.lerobot import Dataset
from engram.data.normalise import ACTION_FLOOR, Normaliser
from engram.policies import checkpoint
from engram.policies.build import Built, build
from engram.policies.design import Design
from engram.settings import Settings
from engram.types import Spec

PROPRIO_FLOOR = 0.01  # metres, radians
# Of a design: what a training may change that goes on from a checkpoint.
FREE = ("trained", "tbptt", "replan", "ensemble", "loss")


def new_policy(data: Dataset, design: Design, settings: Settings) -> Built:
    """The policy that training begins with: on the shipped backbone, on a random one, or as a checkpoint left it.

    ValueError for a start that does not fit the data set or the design.
    """
    torch.manual_seed(settings.seed)
    if settings.start == "pretrained":
        return _on_shipped(data, design)
    return _from_scratch(data, design) if settings.start == "scratch" else _continued(data, design, settings.start)


def _on_shipped(data: Dataset, design: Design) -> Built:
    if design.size != "s":
        do = "use it, or --settings.start scratch"
        raise ValueError(f"size {design.size}: expected 's', the size whose weights ship; {do}")
    weights = tiny.MIKASA if data.robot in tiny.MIKASA_ROBOTS else tiny.PACKAGED
    backbone = tiny.pretrained(weights)
    _require_as_pretrained(backbone, tiny.SIDES[weights], data.spec)
    return build(design, data.spec, _actions(data), backbone)


def _from_scratch(data: Dataset, design: Design) -> Built:
    if design.notes:
        raise ValueError("notes: expected pretrained weights, found a start from scratch; use --design.no-notes")
    if design.trained != "all":
        raise ValueError(f"trained {design.trained}: expected 'all' for a backbone that starts from scratch")
    policy = build(design, data.spec, _actions(data))
    proprio = Normaliser.fit(torch.from_numpy(data.state), PROPRIO_FLOOR)
    policy.trunk.backbone.calibrate(proprio.mean, proprio.std)
    return policy


def _continued(data: Dataset, design: Design, start: str) -> Built:
    """The checkpoint's policy; what learns, and other choices that are in no tensor's shape, may be new."""
    policy, made = checkpoint.load(start)
    asked = asdict(design)
    other = [name for name, value in asdict(made).items() if name not in FREE and value != asked[name]]
    if policy.spec != data.spec or other:
        expected = "its data's cameras and numbers" if policy.spec != data.spec else f"its {', '.join(other)}"
        raise ValueError(f"start {start}: expected {expected}, found others; train on from another checkpoint")
    onward = build(design, data.spec, _actions(data))
    onward.load_state_dict(policy.state_dict())
    return onward


def _actions(data: Dataset) -> Normaliser:
    return Normaliser.fit(torch.from_numpy(data.action), ACTION_FLOOR)


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
