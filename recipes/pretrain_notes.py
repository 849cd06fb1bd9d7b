"""Pretrain the `tiny` backbone for MIKASA-Robo a third time: to keep a note, and to act on it when it is all there is.

The papers' backbones are language models: that a token carries what was read earlier, and that later tokens act on it,
they bring along. The first two stages (recipes/pretrain_mikasa.py) teach to see and to read words; here the slot
stream learns to think in steps about one and the same frame (decision 0009). First it is told something ("the red
cross"), or asked what lies at one side, or told nothing that matters, and then notes what lies nearest to the hand. It
keeps that over some steps in which it is told nothing, or shown nothing; then a slot that may look at the notes says
what was noted, and touches what it was told or what has the colour of what it noted (the latter is not learned so
far); or it says where that was, with the frame gone.

One random frame at a time, as before: never a sequence, a cue, or a task's layout or instruction.

    python recipes/pretrain_notes.py                    # after pretrain_mikasa.py; resumes from runs/pretrain_notes
    python recipes/pretrain_notes.py --install          # also replaces the weights shipped with the package

Legend: B frames, M notes, L layers, X keys and values, C scene tokens, D width.
"""

import json
import math
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pretrain_mikasa as mikasa
import torch
import tyro
from pretrain_mikasa import COLORS, CONSOLE, HELD, SCALE, SIDES, Answers, asked, at, name, with_text
from pretrain_tiny import keep, publish, resume
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from engram import provenance
from engram.backbones import notes
from engram.backbones.tiny import MIKASA, Tiny
from engram.data.seeds import PRETRAIN
from engram.memory.recurrent import gate_bias
from engram.policies.through import PLACE_STD
from engram.train import keep_pages

NOTES = 8  # note slots
WORDS = re.findall(
    r"\w+",
    """observe remember look at the a of to then wait find pick touch move push take hold keep go same different first
    next again object cube shape color place one it and with was is now""",
)


@dataclass(frozen=True)
class Args:
    """Settings; the defaults make the weights that ship."""

    start: Path = Path("runs/pretrain_mikasa")
    """Folder of the first two stages: their scenes and their state."""
    updates: int = 1_400
    frames: int = 64
    lr: float = 2e-3
    save: int = 100
    threads: int = 2
    seed: int = 0
    out: Path = Path("runs/pretrain_notes")
    install: bool = False


class Lesson(NamedTuple):
    """What one frame is about.

    told     text of the first step
    later    text of all others
    goal     way from the hand (3, units of SCALE) to what is to be touched, or to what was noted
    hidden   whether the frame is gone when that is asked
    kind     what was noted: colour, shape (-1: no matter)
    """

    told: str
    later: str
    goal: np.ndarray
    hidden: bool
    kind: tuple[int, int]


def main(args: Args) -> None:
    """Train, evaluate on scenes never trained on, write weights with their provenance."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    keep_pages()
    decides = {key: value for key, value in asdict(args).items() if key not in ("save", "threads", "out", "install")}
    provenance.settle(args.out, {**decides, "start": str(args.start)})
    before = mikasa.Args(out=args.start)
    if not stages(args).exists():
        raise SystemExit(f"{stages(args)}: expected what recipes/pretrain_mikasa.py writes, found none; run it first")
    held, data = mikasa.split(mikasa.load_scenes(before))
    backbone, answers = started(before, torch.from_numpy(data["proprio"]))
    backbone.requires_grad_(False)
    learning = [*backbone.slots.parameters(), backbone.question, backbone.notes.slot, *answers.parameters()]
    optimizer = torch.optim.AdamW([p.requires_grad_(True) for p in learning], args.lr, (0.9, 0.95))
    first = resume(args.out, backbone, answers, optimizer)
    learn(args, first, backbone, answers, optimizer, data, held)
    write(args, backbone, evaluate(backbone, answers, held, looked(backbone, held)))


def stages(args: Args) -> Path:
    """Where the recipe before this one says what it did."""
    return args.start / MIKASA.with_suffix(".json").name


def started(before: mikasa.Args, proprio: Tensor) -> tuple[Tiny, Answers]:
    """Backbone and answers as the first two stages left them; notes begin as questions."""
    state = torch.load(before.out / "state.pt", weights_only=True)
    if state["step"] != before.updates:
        raise SystemExit(f"{before.out}: expected update {before.updates}, found {state['step']}; finish that recipe")
    backbone = mikasa.started(proprio)
    answers = Answers(backbone.width)
    backbone.load_state_dict(state["backbone"])
    answers.load_state_dict(state["answers"])
    backbone.notes = notes.Notes(backbone.width)
    with torch.no_grad():
        backbone.notes.slot.copy_(backbone.question)
    return backbone, answers


def lesson(rng: np.random.Generator, kinds: np.ndarray, places: np.ndarray, hand: np.ndarray) -> Lesson:
    """A lesson about one scene."""
    colours = kinds % len(COLORS)
    draw, later = rng.random(), babble(rng)
    if draw < 0.25 and (once := alone(colours)):
        i = rng.choice(once)
        return Lesson(telling(rng, COLORS[colours[i]]), later, (places[i] - hand) / SCALE, False, (colours[i], -1))
    if draw < 0.45 and (once := alone(kinds)):
        i = rng.choice(once)
        return Lesson(telling(rng, name(kinds[i])), later, (places[i] - hand) / SCALE, False, split_kind(kinds[i]))
    side = rng.choice([*SIDES, "gripper", "gripper", "gripper", "gripper"])
    i = at(side, places) if side in SIDES else int(np.linalg.norm(places - hand, axis=1).argmin())
    plain = side == "gripper" and rng.random() < 0.8
    told = later if plain else f"what is the {side} object"
    others = np.flatnonzero((colours == colours[i]) & (np.arange(len(kinds)) != i))
    if len(others) == 1 and rng.random() < 0.7:
        return Lesson(told, later, (places[others[0]] - hand) / SCALE, False, split_kind(kinds[i]))
    return Lesson(told, later, (places[i] - hand) / SCALE, True, split_kind(kinds[i]))


def alone(values: np.ndarray) -> list[int]:
    """Which objects are the only ones with their value."""
    return [i for i, value in enumerate(values) if (values == value).sum() == 1]


def split_kind(kind: int) -> tuple[int, int]:
    """Colour and shape of a kind."""
    return int(kind) % len(COLORS), int(kind) // len(COLORS)


def telling(rng: np.random.Generator, what: str) -> str:
    """One of several ways to name it."""
    ways = ("the {} one", "remember the {}", "touch the {}", "{}", "look at the {} and wait")
    return str(rng.choice(ways)).format(what)


def babble(rng: np.random.Generator) -> str:
    """Words that say nothing, 1 to 14 of them."""
    return " ".join(rng.choice(WORDS, rng.integers(1, 15)))


def learn(args: Args, first: int, backbone: Tiny, answers: Answers, optimizer, data: dict, held: dict) -> None:
    """The loop; every update draws from a generator seeded by its number, so that a resumed run goes on as it would."""
    began, scene, scene_held = time.time(), looked(backbone, data), looked(backbone, held)
    for step in track(range(first, args.updates), "pretraining", console=CONSOLE):
        rng = np.random.default_rng((args.seed, step))
        torch.manual_seed(step)
        rows = rng.integers(len(data["kinds"]), size=args.frames)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 50) * (0.52 + 0.48 * math.cos(math.pi * step / args.updates))
        loss = noting_loss(backbone, answers, scene[rows].float(), data, rows, rng)
        loss = loss + reading_loss(backbone, answers, scene[rows].float(), data, rows, rng)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in backbone.parameters() if p.requires_grad], 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % args.save == 0 or step + 1 == args.updates:
            now = {"step": step + 1, "seconds": round(time.time() - began), "loss": round(loss.item(), 4)}
            print(json.dumps(now | evaluate(backbone, answers, held, scene_held)), flush=True)
            keep(args.out, step + 1, backbone, answers, optimizer)


@torch.no_grad()
def looked(backbone: Tiny, data: dict) -> Tensor:
    """Keys and values of all scenes, half precision: tower and context stream rest."""
    parts = np.array_split(np.arange(len(data["kinds"])), max(1, len(data["kinds"]) // 100))
    made = []
    for rows in track(parts, "looking", console=CONSOLE):
        seen = mikasa.see(backbone, data, rows)
        made.append(backbone.scene_keys(seen, torch.from_numpy(data["proprio"][rows])).half())
    return torch.cat(made)


def reading_loss(backbone: Tiny, answers: Answers, scene: Tensor, data: dict, rows: np.ndarray, rng) -> Tensor:
    """What the second stage taught, so that it stays: probes, and a question in words of each frame."""
    proprio, kinds = torch.from_numpy(data["proprio"][rows]), torch.from_numpy(data["kinds"][rows])
    way = (torch.from_numpy(data["positions"][rows]) - proprio[:, None, :3]) / SCALE
    texts, truth = mikasa.questions(data, rows, 1, rng)
    return 3 * answers.probe_loss(backbone, scene, kinds, way.nan_to_num()) + 3 * mikasa.answer_loss(
        answers, asked(backbone, scene, texts), truth
    )


def noting_loss(backbone: Tiny, answers: Answers, scene: Tensor, data: dict, rows: np.ndarray, rng) -> Tensor:
    """Way to the goal (Huber), colour and shape of what was noted."""
    lessons = lessons_of(data, rows, rng)
    way, colour, shape = noted(backbone, answers, scene, lessons, rng, follow=True)
    goal, truth_colour, truth_shape = truths(lessons)
    loss = F.smooth_l1_loss(way, goal, beta=0.3) + 0.3 * F.cross_entropy(colour, truth_colour)
    return 3 * loss + 0.9 * F.cross_entropy(shape, truth_shape, ignore_index=-1)


def lessons_of(data: dict, rows: np.ndarray, rng) -> list[Lesson]:
    """A lesson about each of some scenes."""
    drawn = []
    for row in rows:
        there = data["kinds"][row] >= 0
        drawn.append(lesson(rng, data["kinds"][row][there], data["positions"][row][there], data["proprio"][row, :3]))
    return drawn


def truths(lessons: list[Lesson]) -> tuple[Tensor, Tensor, Tensor]:
    """Goals (B, 3), colours and shapes (B,) with -1 where it does not matter."""
    colour, shape = torch.tensor([one.kind for one in lessons]).T
    return torch.tensor(np.array([one.goal for one in lessons], np.float32)), colour, shape


def noted(backbone: Tiny, answers: Answers, scene: Tensor, lessons: list[Lesson], rng, follow: bool) -> tuple:
    """Take a note, keep it for up to four steps, and answer: way (B, 3), logits of colour and shape."""
    rows, width = len(lessons), backbone.width
    slots = backbone.notes.slot + PLACE_STD * torch.randn(1, NOTES, width)
    told, later = ([getattr(one, which) for one in lessons] for which in ("told", "later"))
    first, others = with_text(backbone, scene, told), with_text(backbone, scene, later)
    gate = torch.sigmoid(gate_bias(width, notes.SLOWEST) + torch.empty(rows, 1, 1).uniform_(-0.7, 0.7))
    memory = torch.zeros(rows, NOTES, width)
    for step in range(int(rng.integers(1, 5))):
        kv, ok = first if step == 0 else others
        unseen = torch.rand(rows) < (0.0 if step == 0 else 0.3)
        h_BMD, _ = backbone.ask(slots + notes.SCALE * memory, kv, blind(ok, unseen, scene.shape[3]))
        if follow:
            backbone.notes.follow(h_BMD, 0.02)
        memory = torch.lerp(memory, backbone.notes.standardised(h_BMD), gate)
    kv, ok = others
    ok = blind(ok, torch.tensor([one.hidden for one in lessons]), scene.shape[3])
    reader = backbone.question.expand(rows, 1, -1)
    way, _, colour, shape = answers(backbone.ask_at_once(slots + notes.SCALE * memory, reader, kv, ok)[1][:, 0])
    return way, colour, shape


def blind(ok: Tensor, unseen: Tensor, tokens: int) -> Tensor:
    """The mask without the vision tokens of the rows that see nothing; what the arm feels stays."""
    seen = torch.ones_like(ok)
    seen[:, : tokens - 1] = ~unseen[:, None]
    return ok & seen


@torch.inference_mode()
def evaluate(backbone: Tiny, answers: Answers, held: dict, scene: Tensor) -> dict:
    """Median errors (mm) of ways to what was told, has the colour of what was noted, and lay where it was noted, share
    within 25 mm; colours and shapes kept; and a question in words, as after the second stage."""
    errors: dict[str, list[Tensor]] = {"told": [], "same": [], "recalled": [], "place": []}
    right: dict[str, list[Tensor]] = {"colour": [], "shape": []}
    for start in range(0, HELD, 100):
        rows, rng = np.arange(start, start + 100), np.random.default_rng((7, start))
        torch.manual_seed(start)
        lessons = lessons_of(held, rows, rng)
        way, colour, shape = noted(backbone, answers, scene[rows].float(), lessons, rng, follow=False)
        goal, truth_colour, truth_shape = truths(lessons)
        error = millimetres(way, goal)
        hidden, told = (torch.tensor(flags) for flags in zip(*[(o.hidden, is_told(o)) for o in lessons], strict=True))
        for what, mask in {"told": told, "same": ~told & ~hidden, "recalled": hidden}.items():
            errors[what].append(error[mask])
        right["colour"].append((colour.argmax(-1) == truth_colour).float())
        right["shape"].append((shape.argmax(-1) == truth_shape)[truth_shape >= 0].float())
        texts, truth = mikasa.questions(held, rows, 2, rng)
        asks = (truth[:, 3] > 0) & torch.tensor([not text.endswith("twin") for text in texts])
        position = answers(asked(backbone, scene[rows].float(), texts))[0]
        errors["place"].append(millimetres(position, truth[:, :3])[asks])
    result = {what: torch.cat(parts).mean().item() for what, parts in right.items()}
    for what, parts in errors.items():
        error = torch.cat(parts)
        result |= {f"{what}_mm": error.median().item(), f"{what}_25mm": (error < 25).float().mean().item()}
    return {key: round(value, 3) for key, value in result.items()}


def is_told(one: Lesson) -> bool:
    """Whether the first text names what to touch."""
    return any(color in one.told.split() for color in COLORS)


def millimetres(found: Tensor, truth: Tensor) -> Tensor:
    """Distances in the table's plane between ways in units of SCALE."""
    return (found - truth)[:, :2].norm(dim=1) * SCALE * 1000


def write(args: Args, backbone: Tiny, metrics: dict) -> None:
    """Weights and their provenance, into the run's folder or (with --install) into the package."""
    about = {
        "recipe": "recipes/pretrain_notes.py, after recipes/pretrain_mikasa.py",
        "settings": {key: str(value) for key, value in asdict(args).items() if key not in ("out", "install")},
        "seeds": f"scenes from {PRETRAIN} on, as before; training {args.seed}",
        "labels": "privileged: kinds, colours and places of objects, pose of the gripper; single, random scenes",
        "metrics": metrics,
        "before": json.loads(stages(args).read_text()),
    }
    publish(MIKASA if args.install else args.out / MIKASA.name, backbone, about)


if __name__ == "__main__":
    main(tyro.cli(Args))
