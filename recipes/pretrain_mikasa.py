"""Pretrain the `tiny` backbone further, on single frames of random scenes made of MIKASA-Robo's objects.

The papers start from vision-language models of 7 billion parameters; this stands in for them. It begins with the
weights that ship (the vision tower anew: pictures are of 128 pixels), sees random scenes one frame at a time (never a
sequence, a cue or a task's layout) and answers questions: where is the red cube, how to touch it or take it to another,
what is the leftmost object, where is its twin. Privileged labels (kinds and places of objects) are used here and only
here.

Two stages (decision 0008): the vision tower learns alone, every token of it to say what lies in its cell of the picture
and where in it. Then it rests, and the others learn: the context stream to say of every token where on the table that
lies, the slot stream to find things by such tokens.

    python recipes/pretrain_mikasa.py                    # resumes from runs/pretrain_mikasa; needs `make mikasa`
    python recipes/pretrain_notes.py --install           # the third stage, whose weights ship

Legend: B frames, C cameras, G cells a side of a picture (tokens), K colours, S shapes, N objects, D width.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from mikasa_scenes import (
    CELL,
    COLORS,
    GRID,
    HELD,
    KINDS,
    SCALE,
    SHAPES,
    SHARD,
    TOKENS,
    Scenes,
    augmented,
    draws,
    load,
    questions,
    split,
)
from pretraining import CONSOLE, forward, found_device, keep, publish, resume
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from engram import provenance
from engram.backbones.tiny import MIKASA, SIZES, Tiny, pretrained
from engram.data.seeds import PRETRAIN
from engram.train import keep_pages


@dataclass(frozen=True)
class Args:
    """Settings; the defaults make what the weights that ship went on from."""

    scenes: int = 18_500
    looks: int = 4_000  # updates in which the vision tower learns, from the dense answer alone
    updates: int = 8_000  # in all
    frames: int = 256
    questions: int = 3  # in words, of each frame in the second stage
    lr_looks: float = 5e-3
    lr: float = 2e-3
    half: bool = True  # the tower's products in bfloat16, which some processors are several times as fast at
    save: int = 100
    threads: int = 2
    workers: int = max(0, provenance.cores() // 4 - 1)  # processes that make up questions
    seed: int = 0
    out: Path = Path("runs/pretrain_mikasa")


class Answers(nn.Module):
    """What reads answers off the backbone; thrown away afterwards.

    head    of a question: position (3), presence (1), colour (K), shape (S)
    cell    of every vision token: for each colour whether it is there, where in the cell (2), and its shape (S)
    place   of every token before the last layer of the context stream: for each colour the way to it from the hand (3)
    kind    what makes a question a probe: colour and shape of an object, added to it instead of words beside it; all
            objects of a frame are asked for at once, so that attention learns to find things within minutes
    """

    def __init__(self, width: int):
        super().__init__()
        outputs = 4 + len(COLORS) + len(SHAPES)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, outputs))
        self.cell = nn.Linear(width, len(COLORS) * (3 + len(SHAPES)))
        self.place = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(COLORS) * 3))
        self.kind = nn.Embedding(KINDS, width)

    def forward(self, hidden_BD: Tensor) -> tuple[Tensor, ...]:
        return self.head(hidden_BD).split([3, 1, len(COLORS), len(SHAPES)], -1)

    def cell_loss(self, seen_BND: Tensor, there_BNK: Tensor, offset_BNK2: Tensor, shape_BNK: Tensor) -> Tensor:
        """Presence of each colour in each cell, and where it is there, where in it (cells) and in which shape."""
        present, offset, shape = self.cell(seen_BND).unflatten(-1, (len(COLORS), -1)).split([1, 2, len(SHAPES)], -1)
        presence = F.binary_cross_entropy_with_logits(present[..., 0], there_BNK.float(), reduction="sum")
        distance = F.smooth_l1_loss(offset[there_BNK], offset_BNK2[there_BNK], beta=0.1)
        which = F.cross_entropy(shape[there_BNK], shape_BNK[there_BNK])
        return presence / there_BNK.sum() + 8 * distance + which

    def place_loss(self, understood_BND: Tensor, there_BNK: Tensor, way_BNK3: Tensor) -> Tensor:
        """Where what a token sees lies from the hand (units of SCALE)."""
        found = self.place(understood_BND[:, : there_BNK.shape[1]]).unflatten(-1, (len(COLORS), 3))
        return F.smooth_l1_loss(found[there_BNK], way_BNK3[there_BNK], beta=0.3)

    def probe_loss(self, backbone: Tiny, scene_BLXND: Tensor, kinds_BN: Tensor, way_BN3: Tensor) -> Tensor:
        """Where each object that is the only one of its kind lies from the hand (units of SCALE); -1 is no object."""
        alike_BNN = kinds_BN[:, :, None] == kinds_BN[:, None]
        once_BN = (alike_BNN.sum(-1) == 1) & (kinds_BN >= 0)
        x_BND = backbone.question + self.kind(kinds_BN.clamp(min=0))
        hidden_BND, _ = backbone.ask(x_BND, scene_BLXND)
        return F.smooth_l1_loss(self(hidden_BND)[0][once_BN], way_BN3[once_BN], beta=0.3)


def main(args: Args) -> None:
    """Make scenes, train, evaluate on scenes never trained on, write weights with their provenance."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    keep_pages()
    rest = ("save", "threads", "workers", "out")
    provenance.settle(args.out, {key: value for key, value in asdict(args).items() if key not in rest})
    held, facts = split(load(args.out / "scenes", args.scenes))
    device = found_device()
    backbone = started(facts.proprio).to(device)
    answers = Answers(backbone.width).to(device)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *answers.parameters()], args.lr, (0.9, 0.95))
    first = resume(args.out, backbone, answers, optimizer)
    learn(args, first, backbone, answers, optimizer, facts, held)
    write(args, backbone, evaluate(backbone, answers, held))


def started(proprio: np.ndarray) -> Tiny:
    """The shipped backbone with a new vision tower, for pictures of 128 pixels, and new places for its tokens."""
    backbone = Tiny(2, 7, **SIZES["s"], side=128)
    kept = {
        name: value for name, value in pretrained().state_dict().items() if not name.startswith(("vision", "place"))
    }
    backbone.load_state_dict(kept, strict=False)
    with torch.no_grad():
        backbone.place.copy_(grid_places(backbone.width))
    backbone.calibrate(torch.from_numpy(proprio.mean(0)), torch.from_numpy(proprio.std(0).clip(min=0.01)))
    return backbone


def grid_places(width: int) -> Tensor:
    """What tokens are told of their cell, (2 * G * G, D): a random mixture of waves along both axes for each camera, as
    large as the tokens themselves. Cells side by side are alike from the start; noise would have to become so."""
    row, column = torch.meshgrid(2 * [torch.linspace(-0.5, 0.5, GRID)], indexing="ij")
    phase = torch.stack([row, column], -1).flatten(0, 1)[..., None] * math.pi * torch.tensor([0.5, 1, 2, 4])
    waves = torch.cat([phase.sin(), phase.cos()], -1).flatten(1)
    mixtures = torch.randn(2, waves.shape[1], width) / math.sqrt(waves.shape[1])
    return (waves @ mixtures).flatten(0, 1)


def cells(part: Scenes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each token and colour: whether an object of it lies in the cell, where in it (-0.5 to 0.5), its shape, and
    the way to it from the hand (units of SCALE)."""
    shown = ~part.pixels[..., 0].isnan() & (part.kinds[:, None] >= 0)
    frame, camera, item = shown.nonzero(as_tuple=True)
    xy, kind = part.pixels[frame, camera, item] / CELL, part.kinds[frame, item]
    column, row = xy.long().unbind(1)
    token = camera * GRID**2 + row * GRID + column
    # Of two of one colour in one cell the later counts; written at once, a GPU might take parts of both.
    where = (frame * TOKENS + token) * len(COLORS) + kind % len(COLORS)
    last = where.new_full((len(part.kinds) * TOKENS * len(COLORS),), -1)
    last = last.scatter_reduce(0, where, torch.arange(len(where), device=where.device), "amax")
    last = last.view(-1, TOKENS, len(COLORS))
    there, chosen = last >= 0, last[last >= 0]
    offset, form = xy.new_zeros(*there.shape, 2), torch.zeros_like(last)
    ways = xy.new_zeros(*there.shape, 3)
    offset[there], form[there] = (xy - xy.floor() - 0.5)[chosen], (kind // len(COLORS))[chosen]
    ways[there] = part.ways[frame, item][chosen]
    return there, offset, form, ways


def answer_loss(answers: Answers, hidden: Tensor, truth: Tensor) -> Tensor:
    """Position (Huber), presence, colour and shape, each over the questions that ask for it."""
    position, present, colour, shape = answers(hidden)
    where, asks = truth[:, 3], truth[:, 5]
    distance = F.smooth_l1_loss(position, truth[:, :3], reduction="none", beta=0.3).mean(-1)
    presence = F.binary_cross_entropy_with_logits(present[:, 0], truth[:, 4], reduction="none")
    loss = (distance * where).sum() / where.sum().clamp(min=1)
    loss = loss + 0.2 * (presence * asks).sum() / asks.sum().clamp(min=1)
    loss = loss + 0.3 * F.cross_entropy(colour, truth[:, 6].long(), ignore_index=-1)
    return loss + 0.3 * F.cross_entropy(shape, truth[:, 7].long(), ignore_index=-1)


def learn(args: Args, first: int, backbone: Tiny, answers: Answers, optimizer, facts: Scenes, held: Scenes) -> None:
    """The loop over both stages."""
    began, device, tokens = time.time(), backbone.place.device, None
    data, names = facts.to(device), facts._replace(pictures=facts.kinds)  # all that questions are made of
    labels = data._replace(pictures=data.kinds)

    def draw(step: int, rng: np.random.Generator) -> tuple:
        rows = rng.integers(len(facts.kinds), size=args.frames)
        return rows, *questions(names.rows(rows), args.questions * (step >= args.looks), rng)

    updates = range(first, args.updates)
    for step, drawn in zip(
        track(updates, "pretraining", console=CONSOLE), draws(draw, args.seed, updates, args.workers), strict=True
    ):
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = rate(args, step)
        rows = torch.from_numpy(drawn[0]).to(device)
        if step < args.looks:
            loss = looking(args, backbone, answers, augmented(data.rows(rows)))
        else:
            tokens = seen_once(backbone, data) if tokens is None else tokens
            told = drawn[1], torch.from_numpy(drawn[2]).to(device)
            loss = understanding(step, backbone, answers, tokens[rows].float(), labels.rows(rows), *told)
        loss.backward()
        nn.utils.clip_grad_norm_([*backbone.parameters(), *answers.parameters()], 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % args.save == 0 or step + 1 == args.updates:
            now = {"step": step + 1, "seconds": round(time.time() - began), "loss": round(loss.item(), 4)}
            print(json.dumps(now | evaluate(backbone, answers, held)), flush=True)
            keep(args.out, step + 1, backbone, answers, optimizer)


def looking(args: Args, backbone: Tiny, answers: Answers, part: Scenes) -> Tensor:
    """The loss of the dense answer, which the tower learns from."""
    with torch.autocast(part.pictures.device.type, torch.bfloat16, enabled=args.half):
        return answers.cell_loss(backbone.see(part.pictures), *cells(part)[:3])


@torch.no_grad()
def seen_once(backbone: Tiny, data: Scenes) -> Tensor:
    """Vision tokens of all scenes, as policies will see them, half precision: from now on the tower rests."""
    parts = data.pictures.split(100)
    return torch.cat([backbone.see(part).half() for part in track(parts, "looking", console=CONSOLE)])


def understanding(
    step: int, backbone: Tiny, answers: Answers, seen: Tensor, part: Scenes, texts: list[str], truth: Tensor
) -> Tensor:
    """The loss of all other answers: places, probes and questions in words; a few of these under the mask `full`."""
    if step % 8 == 7:
        some = slice(0, len(texts), len(texts) // len(seen))
        hidden = forward(backbone, seen, part.proprio, texts[some], True)
        return 3 * answer_loss(answers, hidden, truth[some])
    scene, understood = understand(backbone, seen, part.proprio)
    there, _, _, ways = cells(part)
    loss = answers.place_loss(understood, there, ways)
    loss = loss + answers.probe_loss(backbone, scene, part.kinds, part.ways.nan_to_num())
    return 3 * loss + 3 * answer_loss(answers, asked(backbone, scene, texts), truth)


def understand(backbone: Tiny, seen: Tensor, proprio: Tensor) -> tuple[Tensor, Tensor]:
    """`backbone.scene_keys`, and the tokens before the last layer, from which the last keys and values are made."""
    x_BND, made = backbone.embed(seen, proprio), []
    for layer in backbone.context.layers[:-1]:
        q_BND, kv_BXND = layer.project(x_BND)
        made.append(kv_BXND)
        x_BND = layer.finish(x_BND, layer.attend(q_BND, kv_BXND, None))
    return torch.stack([*made, backbone.context.layers[-1].keys(x_BND)], 1), x_BND


def asked(backbone: Tiny, scene: Tensor, texts: list[str]) -> Tensor:
    """Hidden states of questions in words (row-major: frame, question)."""
    slots = backbone.question.expand(len(texts), -1, -1)
    kv, ok = with_text(backbone, scene.repeat_interleave(len(texts) // len(scene), 0), texts)
    return backbone.ask(slots, kv, ok)[0][:, 0]


def with_text(backbone: Tiny, scene: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Keys and values of scenes and words, and which of them are no padding."""
    text, text_ok = backbone.text_keys(texts)
    return torch.cat([scene, text], 3), F.pad(text_ok, (scene.shape[3], 0), value=True)


def rate(args: Args, step: int) -> float:
    """Learning rate: for each of the two stages a warm-up, then a cosine."""
    first, last, peak = (0, args.looks, args.lr_looks) if step < args.looks else (args.looks, args.updates, args.lr)
    done = (step - first) / (last - first)
    return peak * min(1, (step - first + 1) / 100) * (0.52 + 0.48 * math.cos(math.pi * done))


@torch.inference_mode()
def evaluate(backbone: Tiny, answers: Answers, held: Scenes) -> dict:
    """Median position error (mm), share within 25 mm, of kinds and of twins; colours and shapes told; cells found, and
    shapes told of what lies in them, by camera."""
    device = backbone.place.device
    errors: dict[str, list[Tensor]] = {"place": [], "twin": [], "probe": []}
    right: list[Tensor] = []
    seeing: list[dict[str, Tensor]] = []
    for start in range(0, HELD, 100):
        arrays, rng = held.rows(slice(start, start + 100)), np.random.default_rng((7, start))
        part = arrays.to(device)
        texts, answered = questions(arrays, 4, rng)
        truth, seen = torch.from_numpy(answered).to(device), backbone.see(part.pictures)
        position, _, colour, shape = answers(forward(backbone, seen, part.proprio, texts, False))
        where, asked = truth[:, 3] > 0, truth[:, 6] >= 0
        twin = torch.tensor([text.endswith("twin") for text in texts], device=device)
        error = millimetres(position, truth[:, :3])
        errors["place"].append(error[where & ~twin])
        errors["twin"].append(error[where & twin])
        errors["probe"].append(probed(backbone, answers, seen, part))
        right.append(torch.stack([colour.argmax(-1) == truth[:, 6], shape.argmax(-1) == truth[:, 7]], 1)[asked].float())
        seeing.append(in_cells(answers, seen, part))
    told = torch.cat(right).mean(0)
    result = {"colour": told[0].item(), "shape": told[1].item()}
    result |= {key: torch.cat([found[key] for found in seeing]).mean().item() for key in seeing[0]}
    for kind, parts in errors.items():
        error = torch.cat(parts)
        result |= {f"{kind}_mm": error.median().item(), f"{kind}_25mm": (error < 25).float().mean().item()}
    return {key: round(value, 3) for key, value in result.items()}


def in_cells(answers: Answers, seen: Tensor, part: Scenes) -> dict[str, Tensor]:
    """Of everything shown: whether its colour is found in its cell; whether its shape is told, by camera."""
    there, _, form, _ = cells(part)
    told = answers.cell(seen).unflatten(-1, (len(COLORS), -1))
    right = (told[..., 3:].argmax(-1) == form).float()
    base, wrist = there.clone(), there.clone()
    base[:, GRID**2 :], wrist[:, : GRID**2] = False, False
    return {"cells": (told[..., 0] > 0)[there].float(), "base": right[base], "wrist": right[wrist]}


def probed(backbone: Tiny, answers: Answers, seen: Tensor, part: Scenes) -> Tensor:
    """Errors of the probes, mm, of objects that are the only ones of their kind."""
    scene, kinds = backbone.scene_keys(seen, part.proprio), part.kinds
    hidden, _ = backbone.ask(backbone.question + answers.kind(kinds.clamp(min=0)), scene)
    once = ((kinds[:, :, None] == kinds[:, None]).sum(-1) == 1) & (kinds >= 0)
    return millimetres(answers(hidden)[0][once], part.ways[once])


def millimetres(found: Tensor, truth: Tensor) -> Tensor:
    """Distances in the table's plane between ways (N, 3) in units of SCALE."""
    return (found - truth)[:, :2].norm(dim=1) * SCALE * 1000


def write(args: Args, backbone: Tiny, metrics: dict) -> None:
    """Weights and their provenance, into the run's folder."""
    about = {
        "recipe": "recipes/pretrain_mikasa.py",
        "settings": {key: str(value) for key, value in asdict(args).items() if key != "out"},
        "seeds": f"scenes {PRETRAIN}..{PRETRAIN + args.scenes // SHARD} (one per {SHARD}), training {args.seed}",
        "labels": "privileged: kinds, colours and places of objects, pose of the gripper; single, random scenes",
        "metrics": metrics,
        "device": {"type": backbone.place.device.type, **provenance.gpu()},
    }
    publish(args.out / MIKASA.name, backbone, about)


if __name__ == "__main__":
    main(tyro.cli(Args))
