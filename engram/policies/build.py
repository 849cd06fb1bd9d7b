"""From a design (plain values, saved with every checkpoint) to a policy."""

import torch

from engram.backbones.tiny import SIZES, Tiny
from engram.data.normalise import Normaliser
from engram.experts.diffusion import Diffusion
from engram.experts.regression import Regression
from engram.memory.bank import Bank
from engram.memory.frames import FirstFrame, LastFrames
from engram.memory.recurrent import Recurrent
from engram.memory.when import Every, Keyframes
from engram.policies.before import Before
from engram.policies.design import Design
from engram.policies.memory_vla import MemoryVLA, Perception
from engram.policies.through import Through
from engram.policies.trunk import Head, Trunk
from engram.types import Spec

Built = Through | Before | MemoryVLA


def build(design: Design, spec: Spec, action: Normaliser, backbone: Tiny | None = None) -> Built:
    """The policy of a design; `backbone` carries pretrained weights, without it they are random.

    The policy takes the backbone over, its notes included. ValueError for a design with notes and a backbone without.
    """
    if design.notes and backbone is not None and backbone.notes is None:
        raise ValueError("notes: expected weights that know them (MIKASA-Robo's), found others; use --design.no-notes")
    policy = _assembled(design, spec, action, backbone)
    policy.ensemble = design.ensemble
    return policy


def _assembled(design: Design, spec: Spec, action: Normaliser, backbone: Tiny | None) -> Built:
    if backbone is None:
        backbone = Tiny(len(spec.cameras), spec.proprio_dim, **SIZES[design.size], side=spec.height)
    notes, backbone.notes = backbone.notes, None  # what a policy takes over of them is its memory's
    if design.memory == "bank":
        return _memory_vla(design, spec, action, backbone)
    trunk = Trunk(backbone, design.mask, design.trained)
    head = Head(Regression(backbone.width, spec.action_dim, design.chunk, design.loss), action)
    with torch.no_grad():  # slots begin as questions, the only slots that a pretrained backbone has met
        head.expert.slots.add_(backbone.question)
    if design.memory == "recurrent":
        if not design.m or not design.carried:
            return Through(spec, trunk, None, head, design.tbptt, design.replan, pause=design.m)
        initial_std = 0.0 if design.notes else design.initial_std
        memory = Recurrent(design.m, backbone.width, design.rule, initial_std, design.read_scale)
        policy = Through(spec, trunk, memory, head, design.tbptt, design.replan)
        if design.notes and notes is not None:
            policy.begin_with(notes)
        return policy
    tokens = trunk.tokens_per_frame
    if design.memory == "first-frame":
        return Before(spec, trunk, FirstFrame(tokens, backbone.width), 1, head, design.replan)
    past = design.frames - 1
    return Before(spec, trunk, LastFrames(past, tokens, backbone.width), past, head, design.replan)


def _memory_vla(design: Design, spec: Spec, action: Normaliser, backbone: Tiny) -> MemoryVLA:
    asked, width, grid = design.bank, backbone.width, backbone.vision.grid
    trunk = Trunk(backbone, design.mask, design.trained, tokens=True)
    views = (*(grid * grid for _ in spec.cameras), 1)  # proprioception is a token of its own
    tokens = {"both": (sum(views), 1), "perceptual": (sum(views),), "cognitive": (1,)}[asked.streams]
    bank = None
    if asked.capacity:
        bank = Bank(
            tokens, width, asked.capacity, asked.time, asked.merge, asked.write, asked.aligned, asked.form, asked.heads,
            asked.blocks, asked.fusion,
        )  # fmt: skip
    expert = Diffusion(
        width, width, spec.action_dim, design.chunk, asked.expert, asked.draws, asked.steps, asked.guidance
    )
    perception = Perception(trunk, views)
    rule = Keyframes() if asked.when == "keyframes" else Every(asked.every)
    return MemoryVLA(spec, trunk, perception, bank, expert, action, design.replan, asked.streams, rule)
