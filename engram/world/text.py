"""What a robot is told, as tokens that a video model's cross-attention looks at.

words  hashed words with a vector each, learned with the network: for the tiny model
clip   the last hidden states of CLIP's text encoder, frozen, repeated to the width of the network (as in Video
       Prediction Policy, arXiv 2412.14803, which the paper follows)

The number of tokens is fixed, since the network has no mask: padding is a token like others.

Legend: B rows, S tokens, D width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from engram.words import word_ids

VOCABULARY, WORDS = 4096, 16  # so many that two words of an instruction hardly ever share a vector
CLIP_TOKENS = 20
TOKENIZER = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # files, either of which make one


class Words(nn.Module):
    """Vectors of `width` for the first 16 words of a text."""

    learns = True

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.words = nn.Embedding(VOCABULARY, width)
        self.place = nn.Parameter(0.02 * torch.randn(WORDS, width))

    def about(self) -> dict:
        """What it takes to make one of this shape."""
        return {"width": self.width}

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "B S D"]:
        """Tokens of each text."""
        ids_BS = torch.tensor([word_ids(text, VOCABULARY, WORDS) for text in texts], device=self.place.device)
        return self.words(ids_BS) + self.place


class Clip(nn.Module):
    """CLIP's text encoder and its tokenizer. ValueError for a network whose width is no multiple of the encoder's."""

    learns = False

    def __init__(self, encoder: Any, tokenizer: Any, width: int):
        super().__init__()
        own = encoder.config.hidden_size
        if width % own:
            do = "use an encoder that fits the network"
            raise ValueError(f"text: expected an encoder whose width divides {width}, found {own}; {do}")
        self.encoder, self.tokenizer, self.width = encoder.eval().requires_grad_(False), tokenizer, width

    def about(self) -> dict:
        """What it takes to make one of this shape, beside the tokenizer's files."""
        made = self.encoder.config.to_dict()
        return {"width": self.width, "config": {name: value for name, value in made.items() if name[0] != "_"}}

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Float[Tensor, "B S D"]:
        """Tokens of each text; longer text is cut."""
        rule = {"padding": "max_length", "truncation": True, "max_length": CLIP_TOKENS, "return_tensors": "pt"}
        ids_BS = self.tokenizer(list(texts), **rule)["input_ids"].to(self.encoder.device)
        hidden_BSE = self.encoder(input_ids=ids_BS).last_hidden_state
        return hidden_BSE.repeat(1, 1, self.width // hidden_BSE.shape[-1])


Text = Words | Clip


def clip(folder: Path | str, width: int) -> Clip:
    """CLIP from a folder with its weights and its tokenizer, for a network whose cross-attention has `width`.

    ImportError without transformers; ValueError for a folder that lacks either.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: expected a CLIP text encoder (config.json), found none; give its folder")
    read = tokenizer(folder)  # before the weights, which take longer
    from transformers import CLIPTextModel  # not above: words do without it

    expected, do = "expected the weights of a CLIP text encoder", "get them anew"
    try:
        encoder, report = CLIPTextModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder}: {expected}, found: {error}; {do}") from error
    if report["missing_keys"]:
        raise ValueError(f"{folder}: {expected}, found none for {min(report['missing_keys'])}; {do}")
    return Clip(encoder.float(), read, width)


def empty_clip(about: dict, folder: Path) -> Clip:
    """One of that shape (`Clip.about`) with random weights, and the tokenizer in `folder`."""
    read = tokenizer(folder)
    from transformers import CLIPTextConfig, CLIPTextModel

    return Clip(CLIPTextModel(CLIPTextConfig(**about["config"])), read, about["width"])


def tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder. ValueError if it is not there, ImportError without transformers."""
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER):
        expected = "a tokenizer (tokenizer.json, or vocab.json and merges.txt)"
        raise ValueError(f"{folder}: expected {expected}, found none; put it beside the text encoder")
    try:
        from transformers import CLIPTokenizerFast
    except ImportError as missing:
        do = "pip install transformers, or let the model learn its own words"
        raise ImportError(f"{folder}: CLIP text needs the package transformers, which is missing; {do}") from missing
    return CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
