"""Pretrain the `tiny` backbone further, on single frames of random scenes made of MIKASA-Robo's objects.

The papers start from vision-language models of 7 billion parameters; this stands in for them. It begins with the
weights that ship (the vision tower anew: pictures are of 128 pixels), sees random scenes one frame at a time (never a
sequence, a cue or a task's layout) and answers questions: where is the red cube, how to touch it, what is the leftmost
object, where is its twin. Privileged labels (kinds and places of objects) are used here and only here.

Two stages (decision 0008): the vision tower learns alone, every token of it to say what lies in its cell of the picture
and where in it. Then it rests, and the others learn: the context stream to say of every token where on the table that
lies, the slot stream to find things by such tokens.

    python recipes/pretrain_mikasa.py                    # resumes from runs/pretrain_mikasa; needs `make mikasa`
    python recipes/pretrain_notes.py --install           # the third stage, whose weights ship

Legend: B frames, C cameras, G cells of a picture (tokens), K colours, S shapes, N objects, D width.
"""

import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import tyro
from pretrain_tiny import forward, keep, publish, resume
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from engram import provenance
from engram.backbones.tiny import MIKASA, SIZES, Tiny, pretrained
from engram.data.seeds import PRETRAIN
from engram.train import keep_pages

CONSOLE = Console(stderr=True)
# Shapes and colours as engram/envs/mikasa/frames.py numbers them, which loads the simulator: training needs none.
SHAPES = ("cube", "sphere", "cylinder", "cross", "torus", "star", "pyramide", "t_shape", "crescent", "target")
COLORS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "maroon", "olive", "teal", "violet")
KINDS = len(SHAPES) * len(COLORS)
SIDES = {"leftmost": (1, -1), "rightmost": (1, 1), "nearest": (0, -1), "farthest": (0, 1)}
SCALE = 0.2  # metres per unit of the position outputs
GRID, CELL = 8, 16  # cells (tokens) a side of a picture, pixels a side of a cell
HELD, SHARD = 500, 500  # frames held out; frames of a shard


@dataclass(frozen=True)
class Args:
    """Settings; the defaults make what the weights that ship went on from."""

    scenes: int = 11_500
    looks: int = 3_000  # updates in which the vision tower learns, from the dense answer alone
    updates: int = 4_800  # in all
    frames: int = 64
    questions: int = 3  # in words, of each frame in the second stage
    lr_looks: float = 5e-3
    lr: float = 2e-3
    half: bool = True  # the tower's products in bfloat16, which some processors are several times as fast at
    save: int = 100
    threads: int = 2
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
    decides = {key: value for key, value in asdict(args).items() if key not in ("save", "threads", "out")}
    provenance.settle(args.out, decides)
    data = load_scenes(args)
    held, data = split(data)
    backbone = started(torch.from_numpy(data["proprio"]))
    answers = Answers(backbone.width)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *answers.parameters()], args.lr, (0.9, 0.95))
    first = resume(args.out, backbone, answers, optimizer)
    learn(args, first, backbone, answers, optimizer, data, held)
    write(args, backbone, evaluate(backbone, answers, held))


def started(proprio: Tensor) -> Tiny:
    """The shipped backbone with a new vision tower, for pictures of 128 pixels, and new places for its tokens."""
    backbone = Tiny(2, 7, **SIZES["s"], side=128)
    kept = {
        name: value for name, value in pretrained().state_dict().items() if not name.startswith(("vision", "place"))
    }
    backbone.load_state_dict(kept, strict=False)
    with torch.no_grad():
        backbone.place.copy_(grid_places(backbone.width))
    backbone.calibrate(proprio.mean(0), proprio.std(0).clamp(min=0.01))
    return backbone


def grid_places(width: int) -> Tensor:
    """What tokens are told of their cell, (2 * G * G, D): a random mixture of waves along both axes for each camera, as
    large as the tokens themselves. Cells side by side are alike from the start; noise would have to become so."""
    row, column = torch.meshgrid(2 * [torch.linspace(-0.5, 0.5, GRID)], indexing="ij")
    phase = torch.stack([row, column], -1).flatten(0, 1)[..., None] * math.pi * torch.tensor([0.5, 1, 2, 4])
    waves = torch.cat([phase.sin(), phase.cos()], -1).flatten(1)
    mixtures = torch.randn(2, waves.shape[1], width) / math.sqrt(waves.shape[1])
    return (waves @ mixtures).flatten(0, 1)


def load_scenes(args: Args) -> dict[str, np.ndarray]:
    """Random scenes, rendered by two processes into shards that a second call finds."""
    folder = args.out / "scenes"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:04d}.npz" for i in range(args.scenes // SHARD + 1)]
    missing = [(path, PRETRAIN + i) for i, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(track(pool.map(make_shard, missing), "scenes", total=len(missing), console=CONSOLE))
    shards = [dict(np.load(path)) for path in paths]
    return {key: np.concatenate([shard[key] for shard in shards]) for key in shards[0]}


def split(data: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Scenes to measure on, HELD of them and some of every shard; and those to learn from."""
    chosen = np.zeros(len(data["kinds"]), bool)
    chosen[np.linspace(0, len(chosen) - 1, HELD).astype(int)] = True
    return {key: value[chosen] for key, value in data.items()}, {key: value[~chosen] for key, value in data.items()}


def make_shard(job: tuple[Path, int]) -> None:
    """One file of scenes, written whole or not at all."""
    from engram.envs.mikasa.frames import scenes

    path, seed = job
    new = path.with_suffix(".new.npz")
    np.savez(new, **scenes(seed, SHARD))
    new.rename(path)


def name(kind: int) -> str:
    """What a kind is called: "red cube"."""
    return f"{COLORS[kind % len(COLORS)]} {SHAPES[kind // len(COLORS)].replace('_', ' ')}"


def question(rng: np.random.Generator, kinds: np.ndarray, places: np.ndarray, hand: np.ndarray) -> tuple[str, list]:
    """A question about one scene and its answer: [position 3, has position, present, asks presence, colour, shape]."""
    twins = [side for side in SIDES if (kinds == kinds[at(side, places)]).sum() == 2]
    what = rng.choice(["touch", "touch", "where", "what"])
    if twins and rng.random() < 0.4:
        side = rng.choice(twins)
        mine = at(side, places)
        (other,) = np.flatnonzero((kinds == kinds[mine]) & (np.arange(len(kinds)) != mine))
        return f"touch the {side} objects twin", [*(places[other] - hand) / SCALE, 1, 0, 0, -1, -1]
    if what == "what":
        side = rng.choice([*SIDES, "gripper"])
        kind = kinds[at(side, places) if side in SIDES else np.linalg.norm(places - hand, axis=1).argmin()]
        return f"what is the {side} object", [0, 0, 0, 0, 0, 0, kind % len(COLORS), kind // len(COLORS)]
    once = [kind for kind in kinds if (kinds == kind).sum() == 1]
    kind = rng.choice(once) if once and rng.random() < 0.9 else rng.integers(KINDS)
    text = f"touch the {name(kind)}" if what == "touch" else f"where is the {name(kind)}"
    found = np.flatnonzero(kinds == kind)
    if len(found) != 1:
        return text, [0, 0, 0, 0, len(found) > 0, 1, -1, -1]
    return text, [*(places[found[0]] - (hand if what == "touch" else 0)) / SCALE, 1, 1, 1, -1, -1]


def at(side: str, places: np.ndarray) -> int:
    """The object at one end of the table."""
    axis, sign = SIDES[side]
    return int(np.argmax(sign * places[:, axis]))


def questions(data: dict, rows: np.ndarray, count: int, rng: np.random.Generator) -> tuple[list[str], Tensor]:
    """Texts (row-major: frame, question) and answers about some scenes."""
    texts, answers = [], []
    for row in rows:
        there = data["kinds"][row] >= 0
        scene = data["kinds"][row][there], data["positions"][row][there], data["proprio"][row, :3]
        for _ in range(count):
            text, answer = question(rng, *scene)
            texts.append(text)
            answers.append(answer)
    return texts, torch.tensor(np.array(answers, np.float32))


def see(backbone: Tiny, data: dict, rows: np.ndarray) -> Tensor:
    """Vision tokens of some scenes."""
    return backbone.see(torch.from_numpy(np.stack([data["base"][rows], data["wrist"][rows]], 1)))


def augmented(data: dict, rows: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Some scenes for the dense answer: each picture mirrored or not, moved by up to a cell along both axes (its edge
    repeated), a little brighter or darker, and noisy; and where it then shows things. Without that the tower knows
    the shapes of 0.95 of the objects that it learned from, and of 0.75 of others."""
    part = {key: data[key][rows] for key in ("kinds", "positions", "proprio")}
    part["pixels"] = data["pixels"][rows].copy()
    for camera, name in enumerate(("base", "wrist")):
        part[name] = moved(data[name][rows], part["pixels"][:, camera], rng)
    part["pixels"][((part["pixels"] < 0) | (part["pixels"] >= GRID * CELL)).any(-1)] = np.nan
    return part


def moved(pictures: np.ndarray, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures of one camera, augmented; `pixels` (B, N, 2) follows in place."""
    side, frame = GRID * CELL, np.arange(len(pictures))[:, None, None]
    mirrored, shift = rng.random(len(pictures)) < 0.5, rng.integers(-CELL, CELL + 1, (len(pictures), 2))
    column, row = np.clip(np.arange(side) - shift[..., None], 0, side - 1).transpose(1, 0, 2)
    column = np.where(mirrored[:, None], side - 1 - column, column)
    pixels[..., 0] = np.where(mirrored[:, None], side - pixels[..., 0], pixels[..., 0])
    pixels += shift[:, None]
    gain = rng.uniform(0.9, 1.1, (len(pictures), 1, 1, 1)).astype(np.float32)
    noise = 2 * rng.standard_normal(pictures.shape[1:], np.float32)
    return (pictures[frame, row[:, :, None], column[:, None]] * gain + noise).clip(0, 255).astype(np.uint8)


def cells(data: dict, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each token and colour: whether an object of it lies in the cell, where in it (-0.5 to 0.5), its shape, and
    the way to it from the hand (units of SCALE)."""
    kinds, pixels = data["kinds"][rows], data["pixels"][rows]
    way = (data["positions"][rows] - data["proprio"][rows, None, :3]) / SCALE
    frame, camera, item = np.nonzero(~np.isnan(pixels[..., 0]) & (kinds[:, None] >= 0))
    xy = pixels[frame, camera, item] / CELL
    column, row = xy.astype(int).T
    where = (frame, camera * GRID**2 + row * GRID + column, kinds[frame, item] % len(COLORS))
    shape = (len(rows), 2 * GRID**2, len(COLORS))
    there, offset, form = np.zeros(shape, bool), np.zeros((*shape, 2), np.float32), np.zeros(shape, np.int64)
    ways = np.zeros((*shape, 3), np.float32)
    there[where], offset[where] = True, xy - np.floor(xy) - 0.5
    form[where], ways[where] = kinds[frame, item] // len(COLORS), way[frame, item]
    return torch.from_numpy(there), torch.from_numpy(offset), torch.from_numpy(form), torch.from_numpy(ways)


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


def learn(args: Args, first: int, backbone: Tiny, answers: Answers, optimizer, data: dict, held: dict) -> None:
    """The loop; every update draws from a generator seeded by its number, so that a resumed run goes on as it would."""
    began, tokens = time.time(), None
    for step in track(range(first, args.updates), "pretraining", console=CONSOLE):
        rng = np.random.default_rng((args.seed, step))
        torch.manual_seed(step)
        rows = rng.integers(len(data["kinds"]), size=args.frames)
        for group in optimizer.param_groups:
            group["lr"] = rate(args, step)
        if step < args.looks:
            part, every = augmented(data, rows, rng), np.arange(len(rows))
            with torch.autocast("cpu", torch.bfloat16, enabled=args.half):
                loss = answers.cell_loss(see(backbone, part, every), *cells(part, every)[:3])
        else:
            tokens = seen_once(backbone, data) if tokens is None else tokens
            loss = understanding(args, step, backbone, answers, tokens[rows], data, rows, rng)
        loss.backward()
        nn.utils.clip_grad_norm_([*backbone.parameters(), *answers.parameters()], 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % args.save == 0 or step + 1 == args.updates:
            now = {"step": step + 1, "seconds": round(time.time() - began), "loss": round(loss.item(), 4)}
            print(json.dumps(now | evaluate(backbone, answers, held)), flush=True)
            keep(args.out, step + 1, backbone, answers, optimizer)


@torch.no_grad()
def seen_once(backbone: Tiny, data: dict) -> Tensor:
    """Vision tokens of all scenes, as policies will see them: in the second stage the tower rests."""
    parts = np.array_split(np.arange(len(data["kinds"])), len(data["kinds"]) // 100)
    return torch.cat([see(backbone, data, rows) for rows in track(parts, "looking", console=CONSOLE)])


def understanding(args: Args, step: int, backbone: Tiny, answers: Answers, seen: Tensor, data, rows, rng) -> Tensor:
    """The loss of all other answers: places, probes and questions in words; a few of these under the mask `full`."""
    proprio, kinds = torch.from_numpy(data["proprio"][rows]), torch.from_numpy(data["kinds"][rows])
    if step % 8 == 7:
        texts, truth = questions(data, rows, 1, rng)
        return 3 * answer_loss(answers, forward(backbone, seen, proprio, texts, True), truth)
    scene, understood = understand(backbone, seen, proprio)
    there, _, _, ways = cells(data, rows)
    way = (torch.from_numpy(data["positions"][rows]) - proprio[:, None, :3]) / SCALE
    loss = answers.place_loss(understood, there, ways) + answers.probe_loss(backbone, scene, kinds, way.nan_to_num())
    texts, truth = questions(data, rows, args.questions, rng)
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
def evaluate(backbone: Tiny, answers: Answers, held: dict) -> dict:
    """Median position error (mm), share within 25 mm, of kinds and of twins; colours and shapes told; cells."""
    errors: dict[str, list[Tensor]] = {"place": [], "twin": [], "probe": []}
    right, recall = [], []
    for start in range(0, HELD, 100):
        rows, rng = np.arange(start, start + 100), np.random.default_rng((7, start))
        texts, truth = questions(held, rows, 4, rng)
        seen, proprio = see(backbone, held, rows), torch.from_numpy(held["proprio"][rows])
        position, _, colour, shape = answers(forward(backbone, seen, proprio, texts, False))
        where, asked = truth[:, 3] > 0, truth[:, 6] >= 0
        twin = torch.tensor([text.endswith("twin") for text in texts])
        error = (position - truth[:, :3])[:, :2].norm(dim=1) * SCALE * 1000
        errors["place"].append(error[where & ~twin])
        errors["twin"].append(error[where & twin])
        right.append(torch.stack([colour.argmax(-1) == truth[:, 6], shape.argmax(-1) == truth[:, 7]], 1)[asked].float())
        errors["probe"].append(probed(backbone, answers, seen, held, rows))
        there = cells(held, rows)[0]
        found = answers.cell(seen).unflatten(-1, (len(COLORS), -1))[..., 0] > 0
        recall.append(found[there].float())
    told = torch.cat(right).mean(0)
    result = {"colour": told[0].item(), "shape": told[1].item(), "cells": torch.cat(recall).mean().item()}
    for kind, parts in errors.items():
        error = torch.cat(parts)
        result |= {f"{kind}_mm": error.median().item(), f"{kind}_25mm": (error < 25).float().mean().item()}
    return {key: round(value, 3) for key, value in result.items()}


def probed(backbone: Tiny, answers: Answers, seen: Tensor, held: dict, rows: np.ndarray) -> Tensor:
    """Errors of the probes, mm, of objects that are the only ones of their kind."""
    proprio, kinds = torch.from_numpy(held["proprio"][rows]), torch.from_numpy(held["kinds"][rows])
    scene = backbone.scene_keys(seen, proprio)
    hidden, _ = backbone.ask(backbone.question + answers.kind(kinds.clamp(min=0)), scene)
    way = (torch.from_numpy(held["positions"][rows]) - proprio[:, None, :3]) / SCALE
    once = ((kinds[:, :, None] == kinds[:, None]).sum(-1) == 1) & (kinds >= 0)
    return (answers(hidden)[0] - way)[once][:, :2].norm(dim=1) * SCALE * 1000


def write(args: Args, backbone: Tiny, metrics: dict) -> None:
    """Weights and their provenance, into the run's folder."""
    about = {
        "recipe": "recipes/pretrain_mikasa.py",
        "settings": {key: str(value) for key, value in asdict(args).items() if key != "out"},
        "seeds": f"scenes {PRETRAIN}..{PRETRAIN + args.scenes // SHARD} (one per {SHARD}), training {args.seed}",
        "labels": "privileged: kinds, colours and places of objects, pose of the gripper; single, random scenes",
        "metrics": metrics,
    }
    publish(args.out / MIKASA.name, backbone, about)


if __name__ == "__main__":
    main(tyro.cli(Args))
