"""Pretrain the `tiny` backbone on single frames of random tabletop scenes with language (at most an hour on 2 cores).

The papers start from vision-language models pretrained elsewhere; this is our small stand-in. It sees random scenes one
frame at a time (never sequences, cues or delays) and answers questions: where is the red cube, how to touch it, what
colour is the leftmost cube, where is the other cube of its colour. Privileged labels (positions and colours from the
simulator) are used here and only here; the scenes' seeds (engram/data/seeds.py) are disjoint from those of
demonstrations, validation and test.

    python recipes/pretrain_tiny.py                    # resumes from runs/pretrain_tiny
    python recipes/pretrain_tiny.py --install          # also replaces the weights shipped with the package
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
from pretraining import CONSOLE, forward, keep, publish, resume
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from engram.backbones.tiny import PACKAGED, SIZES, Tiny
from engram.data.seeds import PRETRAIN
from engram.envs.tabletop.frames import scenes
from engram.envs.tabletop.scene import COLORS

NAMES = list(COLORS)
IMAGE_TOKENS = 16  # of a camera
SIDES = {"leftmost": (0, -1), "rightmost": (0, 1), "nearest": (1, -1), "farthest": (1, 1)}
SCALE = 0.2  # metres per unit of the position outputs


@dataclass(frozen=True)
class Args:
    """Settings; the defaults make the weights that ship."""

    size: str = "s"
    scenes: int = 40_000
    updates: int = 5_000
    frames: int = 64
    questions: int = 4
    lr: float = 1.5e-3
    save: int = 100
    seed: int = 0
    out: Path = Path("runs/pretrain_tiny")
    install: bool = False


@dataclass(frozen=True)
class Scene:
    """The cubes of a scene, (N,3) metres, and their colours (N,), as numbers of NAMES; which colour is there twice."""

    cubes: np.ndarray
    colors: np.ndarray
    twin_color: int
    gripper: np.ndarray

    @classmethod
    def row(cls, data: dict[str, np.ndarray], row: int) -> "Scene":
        """A row of the scenes drawn."""
        there = np.flatnonzero(~np.isnan(data["positions"][row, :, 0]))
        cubes, colors, twin = data["positions"][row, there], there, int(data["twin_color"][row])
        if twin >= 0:
            cubes, colors = np.vstack([cubes, data["twin"][row]]), np.append(colors, twin)
        return cls(cubes, colors, twin, data["proprio"][row, :3])

    @property
    def unlike_twin(self) -> np.ndarray:
        """All colours, there or not, but the one that is there twice."""
        return np.delete(np.arange(len(NAMES)), self.twin_color) if self.twin_color >= 0 else np.arange(len(NAMES))

    def at(self, side: str) -> int:
        """The cube at one end of the table."""
        axis, sign = SIDES[side]
        return int(np.argmax(sign * self.cubes[:, axis]))


class Answers(nn.Module):
    """What reads answers off the backbone; thrown away afterwards.

    `head` reads a question's hidden state: position (3), presence (1), colour (9). `glance` reads where the cube of
    each colour is straight off the vision tokens: without words to understand first, the tower sees within minutes.
    `pair` reads where the two cubes of one colour are off what the context stream makes of the tokens before its last
    layer: with that, the stream compares.
    """

    def __init__(self, width: int):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 4 + len(NAMES)))
        self.glance = nn.Linear(2 * IMAGE_TOKENS * width, 4 * len(NAMES))
        self.pair = nn.Linear(2 * IMAGE_TOKENS * width, 7)

    def forward(self, hidden_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.head(hidden_BD).split([3, 1, len(NAMES)], -1)

    def glance_loss(self, seen_BND: Tensor, positions_BKX: Tensor, twin_color_B: Tensor) -> Tensor:
        """Presence and position of all nine colours; `positions` is (B, 9, 3) in metres, NaN where there is no cube."""
        position, present = self.glance(seen_BND.flatten(1)).unflatten(1, (len(NAMES), 4)).split([3, 1], -1)
        there_BK = ~positions_BKX[..., 0].isnan()
        presence = F.binary_cross_entropy_with_logits(present[..., 0], there_BK.float())
        error = F.mse_loss(position, positions_BKX.nan_to_num() / SCALE, reduction="none").mean(-1)
        once_BK = there_BK & (twin_color_B.unsqueeze(1) != torch.arange(len(NAMES)))  # a twin's place is either
        return (error * once_BK).sum() / once_BK.sum() + 0.2 * presence

    def pair_loss(self, compared_BND: Tensor, pair_B6: Tensor) -> Tensor:
        """Whether two cubes are alike, and where they are; `pair` is (B, 6) in metres, the far one first, or NaN."""
        there_B = ~pair_B6[:, 0].isnan()
        found = self.pair(compared_BND[:, : 2 * IMAGE_TOKENS].flatten(1))
        error_B = F.mse_loss(found[:, :6], pair_B6.nan_to_num() / SCALE, reduction="none").mean(-1)
        presence = F.binary_cross_entropy_with_logits(found[:, 6], there_B.float())
        return (error_B * there_B).sum() / there_B.sum().clamp(min=1) + 0.3 * presence


def main(args: Args) -> None:
    """Make scenes, train, evaluate on scenes never trained on, write weights with their provenance."""
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    data = load_scenes(args)
    held = {key: value[:2000] for key, value in data.items()}
    data = {key: value[2000:] for key, value in data.items()}
    backbone, answers = Tiny(2, 7, **SIZES[args.size]), Answers(SIZES[args.size]["width"])
    proprio = torch.from_numpy(data["proprio"])
    backbone.calibrate(proprio.mean(0), proprio.std(0).clamp(min=0.01))
    parameters = [*backbone.parameters(), *answers.parameters()]
    optimizer = torch.optim.AdamW(parameters, args.lr, (0.9, 0.95), weight_decay=0.01)
    first = resume(args.out, backbone, answers, optimizer)
    learn(args, first, backbone, answers, optimizer, data, held)
    write(args, backbone, evaluate(backbone, answers, held))


def load_scenes(args: Args) -> dict[str, np.ndarray]:
    """Random scenes, rendered by two processes into shards that a second call finds."""
    size, folder = 1000, args.out / "scenes"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i:04d}.npz" for i in range(args.scenes // size + 2)]
    missing = [(path, PRETRAIN + i, size) for i, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(track(pool.map(make_shard, missing), "scenes", total=len(missing)))
    shards = [dict(np.load(path)) for path in paths]
    return {key: np.concatenate([shard[key] for shard in shards]) for key in shards[0]}


def make_shard(job: tuple[Path, int, int]) -> None:
    """One file of scenes, written whole or not at all."""
    path, seed, count = job
    new = path.with_suffix(".new.npz")
    np.savez(new, **scenes(seed, count))
    new.rename(path)


def question(rng: np.random.Generator, scene: Scene) -> tuple[str, np.ndarray]:
    """A question about one scene and its answer: (text, [position 3, has position, present, asks presence, colour])."""
    if scene.twin_color >= 0 and rng.random() < 0.6:
        return compare(rng, scene)
    kind = rng.choice(["touch", "touch", "where", "side", "hand"])
    if kind in ("touch", "where"):
        return locate(rng, scene, kind)
    if kind == "side":
        side = rng.choice(list(SIDES))
        return f"what colour is the {side} cube", colour(scene.colors[scene.at(side)])
    below = np.argmin(np.linalg.norm(scene.cubes[:, :2] - scene.gripper[:2], axis=1))
    return "what colour is the cube below the gripper", colour(scene.colors[below])


def locate(rng: np.random.Generator, scene: Scene, kind: str) -> tuple[str, np.ndarray]:
    """Where is the cube of a colour, or which way is it from the hand? Now and then there is none."""
    single = scene.colors[scene.colors != scene.twin_color]  # of two red cubes, which is "the red cube"?
    color = rng.choice(single) if len(single) and rng.random() < 0.9 else rng.choice(scene.unlike_twin)
    text = f"touch the {NAMES[color]} cube" if kind == "touch" else f"where is the {NAMES[color]} cube"
    found = np.flatnonzero(scene.colors == color)
    answer = np.array([0, 0, 0, 0, len(found), 1, -1], np.float32)
    return text, place(scene, kind, found[0], answer) if len(found) else answer


def compare(rng: np.random.Generator, scene: Scene) -> tuple[str, np.ndarray]:
    """Of two cubes alike: their colour, or where the one is whose twin is the leftmost cube."""
    ends = [side for side in SIDES if scene.colors[scene.at(side)] == scene.twin_color]
    if not ends or rng.random() < 0.2:
        return "what colour are the two cubes alike", colour(scene.twin_color)
    side, kind = rng.choice(ends), rng.choice(["touch", "touch", "where"])
    pair = np.flatnonzero(scene.colors == scene.twin_color)
    other = pair[pair != scene.at(side)][0]
    text = f"touch the cube in the colour of the {side} cube" if kind == "touch" else f"where is the {side} cubes twin"
    return text, place(scene, kind, other, np.array([0, 0, 0, 0, 0, 0, -1], np.float32))


def colour(name: int) -> np.ndarray:
    """The answer to what colour something is."""
    return np.array([0, 0, 0, 0, 0, 0, name], np.float32)


def place(scene: Scene, kind: str, cube: int, answer: np.ndarray) -> np.ndarray:
    """The answer with a cube's position, from the gripper if it is to be touched."""
    answer[:3] = (scene.cubes[cube] - (scene.gripper if kind == "touch" else 0)) / SCALE
    answer[3] = 1
    return answer


def batch(data: dict[str, np.ndarray], rows: np.ndarray, questions: int, rng: np.random.Generator, augment: bool):
    """Images, proprioception, texts (row-major: frame, question) and answers of some scenes."""
    images = torch.from_numpy(np.stack([data["base"][rows], data["wrist"][rows]], 1))
    if augment:
        gain = torch.from_numpy(rng.uniform(0.9, 1.1, (len(rows), 2, 1, 1, 1)).astype(np.float32))
        noise = torch.randn(images.shape) * 2
        images = (images * gain + noise).clamp(0, 255).to(torch.uint8)
    pairs = [question(rng, scene) for scene in (Scene.row(data, row) for row in rows) for _ in range(questions)]
    answers = torch.from_numpy(np.stack([answer for _, answer in pairs]))
    return images, torch.from_numpy(data["proprio"][rows]), [text for text, _ in pairs], answers


def compared(backbone: Tiny, seen: Tensor, proprio: Tensor) -> Tensor:
    """The scene's tokens before the last layer of the context stream, insulated: what keys and values there hold."""
    x_BND = backbone.embed(seen, proprio)
    for layer in backbone.context.layers[:-1]:
        q_BND, kv_BXND = layer.project(x_BND)
        x_BND = layer.finish(x_BND, layer.attend(q_BND, kv_BXND, None))
    return x_BND


def pairs(data: dict[str, np.ndarray], rows: np.ndarray) -> Tensor:
    """Where the two cubes alike are, the far one first: (B, 6) metres, NaN where there are none."""
    one, other = data["positions"][rows, data["twin_color"][rows]], data["twin"][rows]
    far = (one[:, 1] > other[:, 1])[:, None]
    found = np.where(far, np.hstack([one, other]), np.hstack([other, one]))
    return torch.from_numpy(np.where(np.isnan(other[:, :1]), np.nan, found).astype(np.float32))


def loss_of(answers: Answers, hidden: Tensor, truth: Tensor) -> Tensor:
    """Position (Huber), presence and colour, each over the questions that ask for it."""
    position, present, colour = answers(hidden)
    where = truth[:, 3:4]
    distance = F.smooth_l1_loss(position, truth[:, :3], reduction="none", beta=0.3)
    loss = (distance * where).sum() / where.sum().clamp(min=1)
    asks = truth[:, 5]
    presence = F.binary_cross_entropy_with_logits(present[:, 0], truth[:, 4], reduction="none")
    loss = loss + 0.2 * (presence * asks).sum() / asks.sum().clamp(min=1)
    return loss + 0.3 * F.cross_entropy(colour, truth[:, 6].long(), ignore_index=-1)


def learn(args: Args, first: int, backbone: Tiny, answers: Answers, optimizer, data: dict, held: dict) -> None:
    """The loop; every update draws from a generator seeded by its number, so that a resumed run goes on as it would."""
    started = time.time()
    for step in track(range(first, args.updates), "pretraining", console=CONSOLE):
        rng = np.random.default_rng((args.seed, step))
        torch.manual_seed(step)
        full = step % 4 == 3
        rows = rng.integers(len(data["proprio"]), size=args.frames // 2 if full else args.frames)
        images, proprio, texts, truth = batch(data, rows, 2 if full else args.questions, rng, augment=True)
        for group in optimizer.param_groups:
            group["lr"] = rate(args, step)
        seen, labels = backbone.see(images), (torch.from_numpy(data[key][rows]) for key in ("positions", "twin_color"))
        hidden = forward(backbone, seen, proprio, texts, full)
        alike = answers.pair_loss(compared(backbone, seen, proprio), pairs(data, rows))
        loss = loss_of(answers, hidden, truth) + answers.glance_loss(seen, *labels) + alike
        loss.backward()
        nn.utils.clip_grad_norm_([*backbone.parameters(), *answers.parameters()], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % args.save == 0 or step + 1 == args.updates:
            now = {"step": step + 1, "seconds": round(time.time() - started), "loss": round(loss.item(), 4)}
            print(json.dumps(now | evaluate(backbone, answers, held)), flush=True)
            keep(args.out, step + 1, backbone, answers, optimizer)


def rate(args: Args, step: int) -> float:
    """Learning rate: warm-up, then a cosine."""
    return args.lr * min(1, (step + 1) / 200) * (0.52 + 0.48 * math.cos(math.pi * step / args.updates))


@torch.inference_mode()
def evaluate(backbone: Tiny, answers: Answers, held: dict) -> dict:
    """Median position error (mm), share within 15 mm, colour accuracy; twins apart; held-out scenes, both masks."""
    result = {}
    for full in (False, True):
        name = "full" if full else "insulated"
        errors, twins, right = [], [], []
        for start in range(0, 1000, 100):
            rng = np.random.default_rng((7, start))
            images, proprio, texts, truth = batch(held, np.arange(start, start + 100), 4, rng, augment=False)
            position, _, colour = answers(forward(backbone, backbone.see(images), proprio, texts, full))
            where, asked = truth[:, 3] > 0, truth[:, 6] >= 0
            twin = torch.tensor(["twin" in text or "of the" in text for text in texts]) & where
            error = (position - truth[:, :3])[:, :2].norm(dim=1) * SCALE * 1000
            errors.append(error[where & ~twin])
            twins.append(error[twin])
            right.append(colour[asked].argmax(-1) == truth[asked, 6])
        for kind, error in ((name, torch.cat(errors)), (f"{name}_twin", torch.cat(twins))):
            result[f"{kind}_median_mm"] = round(float(error.median()), 2)
            result[f"{kind}_within_15mm"] = round(float((error < 15).float().mean()), 4)
        result[f"{name}_colour"] = round(float(torch.cat(right).float().mean()), 4)
    return result


def write(args: Args, backbone: Tiny, metrics: dict) -> None:
    """Weights and their provenance, into the run's folder or (with --install) into the package."""
    folder = PACKAGED.parent if args.install else args.out
    about = {
        "recipe": "recipes/pretrain_tiny.py",
        "settings": {key: str(value) for key, value in asdict(args).items() if key not in ("out", "install")},
        "seeds": f"scenes {PRETRAIN}..{PRETRAIN + args.scenes // 1000 + 1} (one per 1000 scenes), training {args.seed}",
        "labels": "privileged: colours and positions of cubes, which two are alike, pose of the gripper; single frames "
        "of random scenes",
        "metrics": metrics,
    }
    publish(folder / f"tiny_{args.size}.safetensors", backbone, about)


if __name__ == "__main__":
    main(tyro.cli(Args))
