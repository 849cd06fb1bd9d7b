"""Random scenes of MIKASA-Robo's objects for the pretraining recipes: made, kept, loaded, augmented, asked about.

Legend: F frames, C cameras, N objects at most in a frame, G cells (tokens) a side of a picture, K colours.
"""

import io
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from pretraining import CONSOLE
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engram import provenance
from engram.data.seeds import PRETRAIN

# Shapes and colours as engram/envs/mikasa/frames.py numbers them, which loads the simulator: training needs none.
SHAPES = ("cube", "sphere", "cylinder", "cross", "torus", "star", "pyramide", "t_shape", "crescent", "target")
COLORS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "maroon", "olive", "teal", "violet")
KINDS = len(SHAPES) * len(COLORS)
SIDES = {"leftmost": (1, -1), "rightmost": (1, 1), "nearest": (0, -1), "farthest": (0, 1)}
MOVES = (
    "move the {} to the {}",
    "take the {} over to the {}",
    "put the {} on the {}",
    "bring the {} near the {}",
    "push the {} onto the {}",
)
WORDS = re.findall(
    r"\w+",
    """observe remember look at the a of to then wait find pick touch move push take hold keep go same different first
    next again object cube shape color place one it and with was is now""",
)
SCALE = 0.2  # metres per unit of the position outputs
CAMERAS = ("base", "wrist")
GRID, CELL = 8, 16  # cells (tokens) a side of a picture, pixels a side of a cell
TOKENS = len(CAMERAS) * GRID**2
HELD, SHARD = 500, 500  # frames held out; frames of a shard
QUALITY = 90  # of the JPEG pictures that are kept: a fifth of the size, off by 3 levels of 255 on average


class Scenes(NamedTuple):
    """Frames and their labels, as tensors on one device or as arrays.

    pictures   uint8 (F, C, 128, 128, 3)
    proprio    float32 (F, 7)          pose of the tool centre and gap of the fingers
    kinds      int64 (F, N)            shape * len(COLORS) + colour of each object; -1 where there is none
    positions  float32 (F, N, 3)       their centres, metres
    pixels     float32 (F, C, N, 2)    column and row of the centres in each picture; NaN outside it
    """

    pictures: Any
    proprio: Any
    kinds: Any
    positions: Any
    pixels: Any

    def rows(self, chosen: Any) -> "Scenes":
        """Some of the frames."""
        return Scenes(*(part[chosen] for part in self))

    @property
    def ways(self) -> Any:
        """From the hand to each object, units of SCALE, (F, N, 3)."""
        return (self.positions - self.proprio[:, None, :3]) / SCALE

    def to(self, device: torch.device | str) -> "Scenes":
        """As tensors there."""
        return Scenes(*(torch.from_numpy(part).to(device) for part in self))


def load(folder: Path, count: int) -> Scenes:
    """Random scenes (arrays), `count` and those that `split` holds out, rendered by two processes into shards that a
    second call finds. ValueError for a file that is no shard."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:04d}.npz" for i in range(count // SHARD + 1)]
    missing = [(path, PRETRAIN + i) for i, path in enumerate(paths) if not path.exists()]
    if missing:
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            list(track(pool.map(make_shard, missing), "scenes", total=len(missing), console=CONSOLE))
    with ThreadPoolExecutor(provenance.cores()) as pool:
        shards = list(pool.map(read_shard, paths))
    return Scenes(*(np.concatenate(parts) for parts in zip(*shards, strict=True)))


def make_shard(job: tuple[Path, int]) -> None:
    """One file of scenes, written whole or not at all."""
    from engram.envs.mikasa.frames import scenes

    path, seed = job
    write_shard(path, scenes(seed, SHARD))


def write_shard(path: Path, made: dict[str, np.ndarray]) -> None:
    """Scenes as engram/envs/mikasa/frames.py makes them, their pictures as JPEG files one after the other."""
    pictures = [jpeg(picture) for camera in CAMERAS for picture in made[camera]]
    labels = {key: value for key, value in made.items() if key not in CAMERAS}
    ends = np.cumsum([len(picture) for picture in pictures])
    new = path.with_suffix(".new.npz")
    np.savez(new, jpegs=np.frombuffer(b"".join(pictures), np.uint8), ends=ends, **labels)
    new.rename(path)


def jpeg(picture: np.ndarray) -> bytes:
    """A picture, colours at full resolution: small things have few pixels."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def read_shard(path: Path) -> Scenes:
    """What `write_shard` wrote."""
    with np.load(path) as shard:
        if "jpegs" not in shard:
            found = ", ".join(shard)
            raise ValueError(f"{path}: expected pictures as JPEG files (jpegs, ends), found {found}; delete it")
        files = np.split(shard["jpegs"], shard["ends"][:-1])
        pictures = np.stack([np.asarray(Image.open(io.BytesIO(file.tobytes()))) for file in files])
        both = pictures.reshape(len(CAMERAS), -1, *pictures.shape[1:]).swapaxes(0, 1)
        return Scenes(both, *(shard[key] for key in Scenes._fields[1:]))


def split(data: Scenes) -> tuple[Scenes, Scenes]:
    """Scenes to measure on, HELD of them and some of every shard; and those to learn from."""
    chosen = np.zeros(len(data.kinds), bool)
    chosen[np.linspace(0, len(chosen) - 1, HELD).astype(int)] = True
    return data.rows(chosen), data.rows(~chosen)


def augmented(part: Scenes) -> Scenes:
    """Scenes for the dense answer: each picture mirrored or not, moved by up to a cell along both axes (its edge
    repeated), a little brighter or darker, and noisy; and where it then shows things. Without that the tower knows
    the shapes of 0.95 of the objects that it learned from, and of 0.75 of others."""
    moves = [_moved(part.pictures[:, c], part.pixels[:, c]) for c in range(len(CAMERAS))]
    pictures, pixels = (torch.stack(parts, 1) for parts in zip(*moves, strict=True))
    outside = ((pixels < 0) | (pixels >= GRID * CELL)).any(-1, keepdim=True)
    return part._replace(pictures=pictures, pixels=pixels.masked_fill(outside, torch.nan))


def _moved(pictures: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (F, H, W, 3) of one camera, augmented, and where they now show what was at `pixels` (F, N, 2)."""
    frames, side, device = len(pictures), GRID * CELL, pictures.device
    mirrored = torch.rand(frames, 1, device=device) < 0.5
    shift = torch.randint(-CELL, CELL + 1, (2, frames, 1), device=device)
    column, row = (torch.arange(side, device=device) - shift).clamp(0, side - 1)
    column = torch.where(mirrored, side - 1 - column, column)
    gain = torch.empty(frames, 1, 1, 1, device=device).uniform_(0.9, 1.1)
    noise = 2 * torch.randn(pictures.shape, device=device)
    frame = torch.arange(frames, device=device)[:, None, None]
    moved = pictures[frame, row[:, :, None], column[:, None]] * gain + noise
    x = torch.where(mirrored, side - pixels[..., 0], pixels[..., 0])
    return moved.round().clamp(0, 255).to(torch.uint8), torch.stack([x, pixels[..., 1]], -1) + shift.permute(1, 2, 0)


def tokens_of(pixels: np.ndarray) -> np.ndarray:
    """Which token shows each object, int64 (F, C, N) from its centres (F, C, N, 2); -1 for none."""
    column, row = np.moveaxis(np.nan_to_num(pixels // CELL, nan=-1).astype(int), -1, 0)
    camera = np.arange(len(CAMERAS))[:, None]
    return np.where(column < 0, -1, camera * GRID**2 + row * GRID + column)


def name(kind: int) -> str:
    """What a kind is called: "red cube"."""
    return f"{COLORS[kind % len(COLORS)]} {SHAPES[kind // len(COLORS)].replace('_', ' ')}"


def called(rng: np.random.Generator, kinds: np.ndarray, i: int) -> str:
    """A name that singles out an object that is the only one of its kind: the kind's, or its colour or shape alone."""
    ways = [name(kinds[i])]
    if (kinds % len(COLORS) == kinds[i] % len(COLORS)).sum() == 1:
        ways.append(f"{COLORS[kinds[i] % len(COLORS)]} one")
    if (kinds // len(COLORS) == kinds[i] // len(COLORS)).sum() == 1:
        shape = SHAPES[kinds[i] // len(COLORS)].replace("_", " ")
        ways.append("ball" if shape == "sphere" and rng.random() < 0.7 else shape)
    return str(rng.choice(ways))


def touching(rng: np.random.Generator, kinds: np.ndarray, i: int) -> str:
    """Words after which the hand goes to an object, the only one of its kind: to touch it, or to move it to another;
    with or without a clause behind."""
    others = np.delete(np.arange(len(kinds)), i)
    if not len(others) or rng.random() < 0.4:
        return f"touch the {called(rng, kinds, i)}" + behind(rng, [])
    where = name(kinds[rng.choice(others)])
    return str(rng.choice(MOVES)).format(called(rng, kinds, i), where) + behind(rng, [where, where.split()[-1]])


def behind(rng: np.random.Generator, names: list[str]) -> str:
    """Nothing, or a clause that changes nothing, perhaps about what was named before."""
    if rng.random() < 0.5:
        return ""
    words = babble(rng).split()
    if names and rng.random() < 0.7:
        words.insert(rng.integers(len(words) + 1), f"the {rng.choice(names)}")
    return f" {' '.join(words)}"


def babble(rng: np.random.Generator) -> str:
    """Words that say nothing, 1 to 14 of them."""
    return " ".join(rng.choice(WORDS, rng.integers(1, 15)))


def at(side: str, places: np.ndarray) -> int:
    """The object at one end of the table."""
    axis, sign = SIDES[side]
    return int(np.argmax(sign * places[:, axis]))


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
    found = np.flatnonzero(kinds == kind)
    if len(found) != 1:
        verb = "touch" if what == "touch" else "where is"
        return f"{verb} the {name(kind)}", [0, 0, 0, 0, len(found) > 0, 1, -1, -1]
    text = touching(rng, kinds, found[0]) if what == "touch" else f"where is the {called(rng, kinds, found[0])}"
    return text, [*(places[found[0]] - (hand if what == "touch" else 0)) / SCALE, 1, 1, 1, -1, -1]


def questions(part: Scenes, count: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Texts (row-major: frame, question) and answers about some scenes (arrays)."""
    texts, answers = [], []
    for kinds, places, proprio in zip(part.kinds, part.positions, part.proprio, strict=True):
        for _ in range(count):
            text, answer = question(rng, kinds[kinds >= 0], places[kinds >= 0], proprio[:3])
            texts.append(text)
            answers.append(answer)
    return texts, np.array(answers, np.float32)


def draws(draw: Callable[[int, np.random.Generator], Any], seed: int, updates: range, workers: int) -> Iterable[Any]:
    """`draw` for each update, with a generator seeded by its number, so that a resumed run goes on as it would; ahead
    of time in so many processes, if any."""
    how = "fork" if workers else None  # what is drawn from is large and need not be pickled
    options: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": how, "collate_fn": _as_it_is}
    return DataLoader(_Draws(draw, seed), None, sampler=updates, **options)


class _Draws(Dataset):
    def __init__(self, draw: Callable[[int, np.random.Generator], Any], seed: int):
        self.draw, self.seed = draw, seed

    def __getitem__(self, update: int) -> Any:
        return self.draw(update, np.random.default_rng((self.seed, update)))


def _as_it_is(drawn: Any) -> Any:
    return drawn
