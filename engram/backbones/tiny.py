"""`tiny`: a vision-language backbone of 1 to 10 million parameters, laid out like the large ones.

A convolutional vision tower gives a token for each 16 x 16 pixels of a camera (of 64 or 128 a side); they,
proprioception and the words of the instruction are the context; memory and action tokens are slots (streams.py). Two
context masks (decision 0002):

full       context and memory see one another; the trunk runs once per control tick (the paper's mask).
insulated  images and proprioception see one another, text sees text, neither sees memory: the trunk of a whole window
           is one batch, and with frozen weights it is computed once per frame and kept.

Legend: B rows, C cameras, N tokens, S text tokens, D width, L layers; kv_BLXND and ok_BN as in streams.py.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad

from engram.backbones.notes import Notes
from engram.backbones.streams import Stream, against, alone, together
from engram.words import word_ids as hashed

VOCABULARY, TEXT_TOKENS = 512, 16
CAMERAS, SIDE = ("base", "wrist"), 64  # what the shipped weights were pretrained on: these cameras; pixels a side
PACKAGED = Path(__file__).with_name("tiny_s.safetensors")
MIKASA = Path(__file__).with_name("tiny_s_mikasa.safetensors")  # pretrained further, on MIKASA-Robo's pictures
MIKASA_ROBOTS = ("engram-mikasa", "mikasa_robo")  # as our data sets and the published ones call that benchmark's arm
SIDES = {PACKAGED: SIDE, MIKASA: 128}  # pixels a side of the pictures that the weights know
SIZES: dict[str, dict[str, Any]] = {
    "s": {"width": 128, "heads": 4, "layers": 3, "channels": (16, 32, 64)},
    "m": {"width": 192, "heads": 6, "layers": 4, "channels": (24, 48, 96)},
    "l": {"width": 256, "heads": 8, "layers": 6, "channels": (32, 64, 128)},
}


@lru_cache(maxsize=4096)
def word_ids(instruction: str) -> tuple[int, ...]:
    """Word ids (1..VOCABULARY-1, by hash) of an instruction, padded with 0 to TEXT_TOKENS; longer text is cut.

    Some words share an id, "orange" and "cubes" among them: instructions should differ in more than one word.
    """
    return tuple(hashed(instruction, VOCABULARY, TEXT_TOKENS))


class VisionTower(nn.Module):
    """Strided convolutions: (B,3,H,W) in [-1,1] to a grid of tokens (B,G*G,D), G = 4, or 8 from 128 pixels a side on.

    Larger pictures show small things: their tower is wider, and looks again at each resolution (decision 0008).
    """

    def __init__(self, width: int, channels: Sequence[int], side: int):
        super().__init__()
        self.grid = 8 if side >= 128 else 4
        self.body = nn.Sequential(*(_wide(width, channels, side // 32) if self.grid == 8 else _plain(width, channels)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Tokens in row-major order of the grid."""
        grid = self.body(x_BCHW.contiguous(memory_format=torch.channels_last))
        return nn.functional.adaptive_avg_pool2d(grid, self.grid).flatten(2).transpose(1, 2)


class Again(nn.Module):
    """x + f(x), f a convolution over the neighbours: more is told from what is there already."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(*_convolution(channels, channels, 3, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.body(x_BCHW)


def _plain(width: int, channels: Sequence[int]) -> list[nn.Module]:
    """Four convolutions, each of which halves the picture."""
    sizes = [3, *channels, width]
    return [step for before, after in pairwise(sizes) for step in _convolution(before, after, 3, 2)][:-1]


def _wide(width: int, channels: Sequence[int], stem: int) -> list[nn.Module]:
    """A convolution to 32 cells a side (or up to 47) and two that halve that, a second look after each of the two.

    More channels where there are more cells than in the plain tower: what is small is told there or not at all.
    """
    first, second, _ = channels
    sizes = [4 * first, 3 * second, width]
    steps = _convolution(3, sizes[0], 3 * stem // 2, stem)
    for before, after in pairwise(sizes):
        steps += [*_convolution(before, after, 3, 2), Again(after)]
    return [*steps, nn.GroupNorm(max(1, width // 16), width)]


def _convolution(before: int, after: int, size: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, size, stride, padding=(size - stride + 1) // 2)
    return [conv, nn.GroupNorm(max(1, after // 16), after), nn.GELU()]


class Tiny(nn.Module):
    """The backbone: `cameras` images per tick, of `side` pixels a side, and `proprio_dim` numbers of proprioception
    (raw; normalised in here)."""

    proprio_mean: Tensor
    proprio_std: Tensor
    notes: Notes | None  # for weights that were pretrained to take them

    def __init__(
        self,
        cameras: int,
        proprio_dim: int,
        width: int,
        heads: int,
        layers: int,
        channels: Sequence[int],
        side: int = SIDE,
    ):
        super().__init__()
        self.width, self.layers = width, layers
        self.register_buffer("proprio_mean", torch.zeros(proprio_dim))
        self.register_buffer("proprio_std", torch.ones(proprio_dim))
        self.vision = VisionTower(width, channels, side)
        self.place = nn.Parameter(0.02 * torch.randn(cameras * self.vision.grid**2, width))
        self.proprio = nn.Sequential(nn.Linear(proprio_dim, width), nn.GELU(), nn.Linear(width, width))
        self.words = nn.Embedding(VOCABULARY, width)
        self.word_place = nn.Parameter(0.02 * torch.randn(TEXT_TOKENS, width))
        self.context, self.slots = Stream(width, heads, layers), Stream(width, heads, layers)
        self.question = nn.Parameter(0.02 * torch.randn(1, width))
        self.notes = None

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the part that may be frozen as one."""
        embeddings = [self.place, self.word_place, *self.proprio.parameters(), *self.words.parameters()]
        return {
            "vision": list(self.vision.parameters()),
            "context": list(self.context.parameters()),
            "embeddings": embeddings,
        }

    def calibrate(self, mean_P: Tensor, std_P: Tensor) -> None:
        """Take over the statistics that normalise proprioception; `std` should have a floor (data/normalise.py)."""
        self.proprio_mean.copy_(mean_P)
        self.proprio_std.copy_(std_P)

    def see(self, images_BCHWX: UInt8[Tensor, "B C H W 3"]) -> Float[Tensor, "B N D"]:
        """Vision tokens (N = G * G * C) of raw images; independent of everything else."""
        x = images_BCHWX.flatten(0, 1).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return self.vision(x).unflatten(0, images_BCHWX.shape[:2]).flatten(1, 2)

    def embed(self, seen_BND: Tensor, proprio_BP: Tensor) -> Float[Tensor, "B N D"]:
        """Input tokens of the scene: vision with places, then one token of proprioception."""
        proprio_BD = self.proprio((proprio_BP - self.proprio_mean) / self.proprio_std)
        return torch.cat([seen_BND + self.place, proprio_BD.unsqueeze(1)], 1)

    def text(self, instructions: Sequence[str]) -> tuple[Float[Tensor, "B S D"], Bool[Tensor, "B S"]]:
        """Input tokens of the words, and which of them are no padding; S is the longest text's length."""
        ids = [word_ids(text) for text in instructions]
        longest = max(1, *(len(row) - row.count(0) for row in ids))  # a text without words is one of padding
        ids_BS = torch.tensor([row[:longest] for row in ids], device=self.place.device)
        return self.words(ids_BS) + self.word_place[:longest], ids_BS > 0

    def scene_keys(self, seen_BND: Tensor, proprio_BP: Tensor) -> Float[Tensor, "B L 2 N D"]:
        """Insulated: keys and values of the scene, whatever the text and the memory."""
        return alone(self.context, self.embed(seen_BND, proprio_BP))

    def text_keys(self, instructions: Sequence[str]) -> tuple[Float[Tensor, "B L 2 S D"], Bool[Tensor, "B S"]]:
        """Insulated: keys and values of the text; each distinct instruction is computed once."""
        distinct = sorted(set(instructions))
        x_USD, ok_US = self.text(distinct)
        row = {text: i for i, text in enumerate(distinct)}
        index = torch.tensor([row[text] for text in instructions], device=x_USD.device)
        return alone(self.context, x_USD, ok_US)[index], ok_US[index]

    def ask(
        self, x_BND: Tensor, kv: Tensor | Sequence[Tensor], ok_BM: Tensor | None = None
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B L 2 N D"]]:
        """Run slots against given keys and values, whole or in pieces: hidden states, and their own keys and values."""
        hidden, made = against(self.slots, x_BND, kv, ok_BM)
        return hidden, torch.stack(made, 1)

    def think(
        self, scene_BCD: Tensor, text_BSD: Tensor, text_ok_BS: Tensor, slots_BND: Tensor
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B L 2 M D"], Bool[Tensor, "B M"]]:
        """Full: scene, text and memory slots in one attention. Hidden states of the slots, keys, values, key mask."""
        x_BCD, ok_BC = _joined(scene_BCD, text_BSD, text_ok_BS)
        hidden, made = together(self.context, x_BCD, self.slots, slots_BND, ok_BC)
        return hidden, torch.stack(made, 1), pad(ok_BC, (0, slots_BND.shape[1]), value=True)

    def ask_at_once(
        self, slots_BND: Tensor, readers_BRD: Tensor, kv: Tensor | Sequence[Tensor], ok_BM: Tensor
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B R D"]]:
        """Slots, and readers against them, in one pass: hidden states of both as two calls of `ask` give them."""
        x_BMD, readers = torch.cat([slots_BND, readers_BRD], 1), readers_BRD.shape[1]
        hidden, _ = against(self.slots, x_BMD, kv, ok_BM, readers)
        return hidden[:, :-readers], hidden[:, -readers:]

    def think_at_once(
        self, slots_BND: Tensor, readers_BRD: Tensor, scene_BCD: Tensor, text_BSD: Tensor, text_ok_BS: Tensor
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B R D"]]:
        """Full: the hidden states that `think`, and then `ask` with the readers, give."""
        x_BCD, ok_BC = _joined(scene_BCD, text_BSD, text_ok_BS)
        x_BMD, readers = torch.cat([slots_BND, readers_BRD], 1), readers_BRD.shape[1]
        hidden, _ = together(self.context, x_BCD, self.slots, x_BMD, ok_BC, readers)
        return hidden[:, :-readers], hidden[:, -readers:]


def _joined(scene_BCD: Tensor, text_BSD: Tensor, text_ok_BS: Tensor) -> tuple[Tensor, Tensor]:
    """The whole context, and which of its tokens are no padding."""
    ok_BC = pad(text_ok_BS, (scene_BCD.shape[1], 0), value=True)
    return torch.cat([scene_BCD, text_BSD], 1), ok_BC


def pretrained(path: Path = PACKAGED) -> Tiny:
    """The smallest size with weights that ship: PACKAGED knows our table (recipes/pretrain_tiny.py), MIKASA that
    benchmark's (recipes/pretrain_mikasa.py, then pretrain_notes.py); provenance in the .json beside them.

    ValueError if they are not there.
    """
    if not path.is_file():
        recipe = f"recipes/pretrain_{'notes' if path.name == MIKASA.name else 'tiny'}.py"
        do = f"make them (python {recipe} --install), or start from scratch"
        raise ValueError(f"pretrained weights: expected {path.name} in the package, found no file; {do}")
    tensors = {name: value.float() for name, value in load_file(path).items()}
    side = 128 if len(tensors["place"]) == 8 * 8 * len(CAMERAS) else SIDE  # a place for each token of both pictures
    backbone = Tiny(len(CAMERAS), tensors["proprio_mean"].shape[0], **SIZES["s"], side=side)
    if "notes.slot" in tensors:
        backbone.notes = Notes(backbone.width)
    backbone.load_state_dict(tensors)
    return backbone
