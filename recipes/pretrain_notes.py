"""Pretrain the `tiny` backbone for MIKASA-Robo a third time: to keep a note, and to act on it when it is all there is.

The papers' backbones are language models: that a token carries what was read earlier, and that later tokens act on it,
they bring along. The first two stages (recipes/pretrain_mikasa.py) teach to see and to read words; here the slot
stream learns to think in steps about one and the same frame (decision 0009). First it is told something ("the red
cross"), or shown one of two like objects while the tokens of all others are covered, or asked what lies at one side, or
told nothing that matters, and then it is about what lies nearest to the hand. It takes a note of that, and keeps it
over some steps in which it is told nothing, or shown nothing. Then a slot that may look at the notes says what was
noted, and touches what it was told, or the object like the one it saw, which is covered now; or it says where that
was, with the frame gone.

One random frame at a time, as before: never a sequence, a cue, or a task's layout or whole sentence. "Push the cube
onto the red target", with which TakeItBack's begins, may come about where a frame shows such things (decision 0009).

    python recipes/pretrain_notes.py                    # after pretrain_mikasa.py; resumes from runs/pretrain_notes
    python recipes/pretrain_notes.py --install          # also replaces the weights shipped with the package

The weights that ship went through these stages when lessons named one thing at a time, and then went on, on two cores:

    python recipes/pretrain_notes.py --weights FILE --words --updates 1300 --frames 64 --lr 1.5e-3 --out OUT --install

Legend: B frames, M notes, N objects, C cameras, T vision tokens, D width.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pretrain_mikasa as mikasa
import torch
import tyro
from mikasa_lessons import Batch, lessons_of
from mikasa_scenes import HELD, TOKENS, Scenes, draws, load, questions, split
from pretrain_mikasa import Answers, asked, millimetres, seen_once
from pretraining import CONSOLE, found_device, keep, kept, publish, resume
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from engram import provenance
from engram.backbones import notes, tiny
from engram.backbones.streams import alone as alone_in
from engram.backbones.tiny import MIKASA, Tiny
from engram.data.seeds import PRETRAIN
from engram.memory.recurrent import gate_bias
from engram.policies.through import PLACE_STD
from engram.train import keep_pages

NOTES, STEPS = 8, 4  # note slots; steps at most
READING = 150  # updates in which what reads answers, where it is new, learns alone


@dataclass(frozen=True)
class Args:
    """Settings."""

    start: Path = Path("runs/pretrain_mikasa")
    """Folder of the first two stages: their scenes and their state."""
    weights: Path | None = None
    """Go on from a file of this recipe instead; what read answers off it was thrown away and is learned anew."""
    words: bool = False
    """Let what understands words and tokens learn too (context stream, word vectors)."""
    updates: int = 2_400
    frames: int = 256
    questions: int = 3
    """In words, of each frame, beside its lesson."""
    lr: float = 2e-3
    save: int = 100
    threads: int = 2
    workers: int = max(0, provenance.cores() // 4 - 1)
    """Processes that make up lessons."""
    seed: int = 0
    out: Path = Path("runs/pretrain_notes")
    install: bool = False


def main(args: Args) -> None:
    """Train, evaluate on scenes never trained on, write weights with their provenance."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    keep_pages()
    stage = before(args)
    rest = ("save", "threads", "workers", "out", "install", "start", "weights")
    decides = {key: value for key, value in asdict(args).items() if key not in rest}
    provenance.settle(args.out, {**decides, "start": stage["sha256"]})
    made = stages(stage)["settings"]
    held, facts = split(load(args.start / "scenes", int(made["scenes"])))
    backbone, answers = (
        went_on(args.weights) if args.weights else started(args.start, int(made["updates"]), facts.proprio)
    )
    device = found_device()
    backbone.to(device).requires_grad_(False)
    learning = [*backbone.slots.parameters(), backbone.question, backbone.notes.slot]
    if args.words:
        learning += [*backbone.context.parameters(), *backbone.words.parameters(), backbone.word_place]
    parts = [[p.requires_grad_(True) for p in learning], [*answers.to(device).parameters()]]
    optimizer = torch.optim.AdamW([{"params": part} for part in parts], args.lr, (0.9, 0.95))
    first = resume(args.out, backbone, answers, optimizer)
    learn(args, first, backbone, answers, optimizer, facts, held)
    write(args, backbone, evaluate(backbone, answers, held))


def before(args: Args) -> dict:
    """What is known of the weights that this begins with."""
    path = (args.weights or args.start / MIKASA.name).with_suffix(".json")
    if not path.exists():
        raise SystemExit(f"{path}: expected what the recipe before writes beside its weights, found none; run it")
    return json.loads(path.read_text())


def stages(about: dict) -> dict:
    """What the first two stages said of themselves, of which this recipe may have gone on several times."""
    return stages(about["before"]) if "before" in about else about


def went_on(weights: Path) -> tuple[Tiny, Answers]:
    """Weights with notes, and new answers."""
    backbone = tiny.pretrained(weights)
    return backbone, Answers(backbone.width)


def started(before: Path, updates: int, proprio: np.ndarray) -> tuple[Tiny, Answers]:
    """Backbone and answers as the first two stages left them; notes begin as questions."""
    state = kept(before)
    if state["step"] != updates:
        raise SystemExit(f"{before}: expected update {updates}, found {state['step']}; finish that recipe")
    backbone = mikasa.started(proprio)
    answers = Answers(backbone.width)
    backbone.load_state_dict(state["backbone"])
    answers.load_state_dict(state["answers"])
    backbone.notes = notes.Notes(backbone.width)
    with torch.no_grad():
        backbone.notes.slot.copy_(backbone.question)
    return backbone, answers


def learn(args: Args, first: int, backbone: Tiny, answers: Answers, optimizer, facts: Scenes, held: Scenes) -> None:
    """The loop."""
    began, device = time.time(), backbone.place.device
    data = facts.to(device)
    tokens, names = seen_once(backbone, data), facts._replace(pictures=facts.kinds)  # all that lessons are made of
    labels = data._replace(pictures=data.kinds)

    def draw(step: int, rng: np.random.Generator) -> tuple:
        rows = rng.integers(len(facts.kinds), size=args.frames)
        part = names.rows(rows)
        return rows, lessons_of(part, rng), questions(part, args.questions, rng), int(rng.integers(1, STEPS + 1))

    updates = range(first, args.updates)
    drawn = draws(draw, args.seed, updates, args.workers)
    for step, (chosen, lessons, asking, steps) in zip(
        track(updates, "pretraining", console=CONSOLE), drawn, strict=True
    ):
        torch.manual_seed(step)
        slots, reader = optimizer.param_groups
        reader["lr"] = args.lr * min(1, (step + 1) / 50) * (0.52 + 0.48 * math.cos(math.pi * step / args.updates))
        slots["lr"] = 0.0 if args.weights and step < READING else reader["lr"]
        rows = torch.from_numpy(chosen).to(device)
        seen, part = tokens[rows].float(), labels.rows(rows)
        loss = noting_loss(backbone, answers, seen, part, lessons.to(device), steps)
        loss = loss + reading_loss(backbone, answers, seen, part, *asking)
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % args.save == 0 or step + 1 == args.updates:
            now = {"step": step + 1, "seconds": round(time.time() - began), "loss": round(loss.item(), 4)}
            print(json.dumps(now | evaluate(backbone, answers, held)), flush=True)
            keep(args.out, step + 1, backbone, answers, optimizer)


def reading_loss(backbone: Tiny, answers: Answers, seen: Tensor, part: Scenes, texts: list[str], truth) -> Tensor:
    """What the second stage taught, so that it stays: probes, and a question in words of each frame."""
    scene = backbone.scene_keys(seen, part.proprio)
    probes = answers.probe_loss(backbone, scene, part.kinds, part.ways.nan_to_num())
    answered = torch.from_numpy(truth).to(seen.device)
    return 3 * probes + 3 * mikasa.answer_loss(answers, asked(backbone, scene, texts), answered)


def noting_loss(backbone: Tiny, answers: Answers, seen: Tensor, part: Scenes, lessons: Batch, steps: int) -> Tensor:
    """Way to the goal (Huber), colour and shape of what was noted."""
    way, colour, shape = noted(backbone, answers, seen, part.proprio, lessons, steps, follow=True)
    loss = F.smooth_l1_loss(way, lessons.goal, beta=0.3) + 0.3 * F.cross_entropy(colour, lessons.kind[:, 0])
    return 3 * loss + 0.9 * F.cross_entropy(shape, lessons.kind[:, 1], ignore_index=-1)


def noted(
    backbone: Tiny, answers: Answers, seen: Tensor, proprio: Tensor, lessons: Batch, steps: int, follow: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Take a note, keep it for so many steps in all, and answer: way (B, 3), logits of colour and shape."""
    (rows, _, width), device = seen.shape, seen.device
    slots = backbone.notes.slot + PLACE_STD * torch.randn(1, NOTES, width, device=device)
    scene = backbone.embed(seen, proprio)
    first, others = (
        context(backbone, scene, lessons.shown[:, i], texts) for i, texts in enumerate((lessons.told, lessons.later))
    )
    hold = gate_bias(width, notes.SLOWEST).to(device)
    gate = torch.sigmoid(hold + torch.empty(rows, 1, 1, device=device).uniform_(-0.7, 0.7))
    memory = torch.zeros(rows, NOTES, width, device=device)
    for step in range(steps):
        kv, ok = first if step == 0 else others
        unseen = torch.rand(rows, device=device) < (0.0 if step == 0 else 0.3)
        h_BMD, _ = backbone.ask(slots + notes.SCALE * memory, kv, blind(ok, unseen))
        if follow:
            backbone.notes.follow(h_BMD, 0.02)
        memory = torch.lerp(memory, backbone.notes.standardised(h_BMD), gate)
    kv, ok = others[0], blind(others[1], lessons.are("recalled"))
    reader = backbone.question.expand(rows, 1, -1)
    way, _, colour, shape = answers(backbone.ask_at_once(slots + notes.SCALE * memory, reader, kv, ok)[1][:, 0])
    return way, colour, shape


def context(backbone: Tiny, scene: Tensor, shown: Tensor, texts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Keys and values of scenes with tokens that are covered, and of words; and which of these may be attended to."""
    ok = F.pad(shown, (0, 1), value=True)  # what the arm feels is never covered
    text, text_ok = backbone.text_keys(texts)
    with torch.no_grad():  # what a scene says is learned from questions, in one pass instead of three
        scene = alone_in(backbone.context, scene, ok)
    return torch.cat([scene, text], 3), torch.cat([ok, text_ok], 1)


def blind(ok: Tensor, unseen: Tensor) -> Tensor:
    """The mask without the vision tokens of the rows that see nothing; what the arm feels stays."""
    seen = torch.ones_like(ok)
    seen[:, :TOKENS] = ~unseen[:, None]
    return ok & seen


@torch.inference_mode()
def evaluate(backbone: Tiny, answers: Answers, held: Scenes) -> dict:
    """Median errors (mm) of ways to what was told, is like what was noted, and lay where it was noted, share within 25
    mm; colours and shapes kept; and of questions in words, about one thing (place) or about two (moved)."""
    device = backbone.place.device
    errors: dict[str, list[Tensor]] = {"told": [], "like": [], "recalled": [], "place": [], "moved": []}
    right: dict[str, list[Tensor]] = {"colour": [], "shape": []}
    for start in range(0, HELD, 100):
        arrays, rng = held.rows(slice(start, start + 100)), np.random.default_rng((7, start))
        torch.manual_seed(start)
        part, lessons = arrays.to(device), lessons_of(arrays, rng).to(device)
        seen, steps = backbone.see(part.pictures), int(rng.integers(1, STEPS + 1))
        way, colour, shape = noted(backbone, answers, seen, part.proprio, lessons, steps, follow=False)
        error = millimetres(way, lessons.goal)
        for about in ("told", "like", "recalled"):
            errors[about].append(error[lessons.are(about)])
        right["colour"].append((colour.argmax(-1) == lessons.kind[:, 0]).float())
        right["shape"].append((shape.argmax(-1) == lessons.kind[:, 1])[lessons.kind[:, 1] >= 0].float())
        texts, answered = questions(arrays, 2, rng)
        truth = torch.from_numpy(answered).to(device)
        scene = backbone.scene_keys(seen, part.proprio)
        error = millimetres(answers(asked(backbone, scene, texts))[0], truth[:, :3])
        moves = [not text.startswith(("touch", "where", "what")) for text in texts]
        asks = (truth[:, 3] > 0) & torch.tensor([not text.endswith("twin") for text in texts], device=device)
        moving = torch.tensor(moves, device=device)
        errors["place"].append(error[asks & ~moving])
        errors["moved"].append(error[asks & moving])
    result = {what: torch.cat(parts).mean().item() for what, parts in right.items()}
    for what, parts in errors.items():
        error = torch.cat(parts)
        result |= {f"{what}_mm": error.median().item(), f"{what}_25mm": (error < 25).float().mean().item()}
    return {key: round(value, 3) for key, value in result.items()}


def write(args: Args, backbone: Tiny, metrics: dict) -> None:
    """Weights and their provenance, into the run's folder or (with --install) into the package."""
    about = {
        "recipe": "recipes/pretrain_notes.py, after recipes/pretrain_mikasa.py",
        "settings": {key: str(value) for key, value in asdict(args).items() if key not in ("out", "install")},
        "seeds": f"scenes from {PRETRAIN} on, as before; training {args.seed}",
        "labels": "privileged: kinds, colours and places of objects, pose of the gripper; single, random scenes",
        "metrics": metrics,
        "device": {"type": backbone.place.device.type, **provenance.gpu()},
        "before": before(args),
    }
    publish(MIKASA if args.install else args.out / MIKASA.name, backbone, about)


if __name__ == "__main__":
    main(tyro.cli(Args))
