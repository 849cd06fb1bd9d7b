"""What every policy on the `tiny` backbone shares: perceiving frames, freezing weights, planning from keys and values.

Legend: B rows, C scene tokens, S text tokens, N action slots, D width, A action, L layers, X keys and values, M all
tokens that may be attended to.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from engram.backbones.tiny import Tiny
from engram.data.normalise import Normaliser
from engram.experts.regression import Regression
from engram.types import Observation, Window

FROZEN = {"slots": ("vision", "context", "embeddings"), "language": ("vision",), "all": ()}


@dataclass(frozen=True)
class Seen:
    """Frames after they met their text, before they met memory.

    scene    insulated: keys and values (B,L,X,C,D), float16 where they were kept; full: embedded tokens (B,C,D)
    text     insulated: keys and values (B,L,X,S,D); full: embedded words (B,S,D)
    text_ok  bool (B,S), False for padding
    tokens   embedded tokens of the scene (B,C,D), for a trunk that gives them
    """

    scene: Tensor
    text: Tensor
    text_ok: Tensor
    tokens: Tensor | None = None

    def keys(self) -> "Keys":
        """Insulated: keys and values of scene and text, and the mask over both."""
        return Keys((self.scene, self.text), F.pad(self.text_ok, (self.scene.shape[3], 0), value=True))


class Keys(NamedTuple):
    """Keys and values that slots may attend to, in pieces along M, and which of them are real."""

    kv: tuple[Float[Tensor, "B L 2 _ D"], ...]
    ok: Bool[Tensor, "B M"]

    def whole(self) -> Float[Tensor, "B L 2 M D"]:
        """The pieces as one."""
        return torch.cat(self.kv, 3)

    def rows(self, use_B: Tensor) -> "Keys":
        """The rows of a mask; padding is left out of what comes next. All rows: these very tensors."""
        return self if bool(use_B.all()) else Keys(tuple(piece[use_B] for piece in self.kv), self.ok[use_B])

    def join(self, kv_BLXND: Tensor, ok_BN: Tensor | None = None) -> "Keys":
        """These and more; without a mask the new ones are all real."""
        if ok_BN is None:
            ok_BN = self.ok.new_ones(self.ok.shape[0], kv_BLXND.shape[3])
        return Keys((*self.kv, kv_BLXND), torch.cat([self.ok, ok_BN], 1))


class Trunk(nn.Module):
    """Backbone, context mask and which weights learn.

    mask      "full" (muVLA's) or "insulated" (backbones/tiny.py)
    trained   "slots": vision tower, context stream and embeddings stay as pretrained; "language": the tower does; "all"
    tokens    give the tokens of a frame themselves, too, as they are before they meet anything
    """

    def __init__(
        self,
        backbone: Tiny,
        mask: Literal["full", "insulated"],
        trained: Literal["slots", "language", "all"],
        tokens: bool = False,
    ):
        super().__init__()
        if mask not in ("full", "insulated"):
            raise ValueError(f"mask: expected 'full' or 'insulated', found {mask!r}")
        if trained not in FROZEN:
            raise ValueError(f"trained: expected one of {', '.join(FROZEN)}, found {trained!r}")
        self.backbone, self.mask, self.trained, self.tokens = backbone, mask, trained, tokens
        for part in FROZEN[trained]:
            for parameter in backbone.parts()[part]:
                parameter.requires_grad_(False)

    def extra_repr(self) -> str:
        """What the tensors of a trunk do not show."""
        return f"mask={self.mask}"

    @property
    def frozen_features(self) -> bool:
        """Whether `features` is free of trained weights, so that a data set's features can be computed once."""
        return self.trained != "all"

    @property
    def tokens_per_frame(self) -> int:
        """How many vectors of the backbone's width hold one frame for a memory of frames."""
        tokens = self.backbone.place.shape[0] + 1
        return tokens if self.mask == "full" else tokens * 2 * self.backbone.layers

    @property
    def _gives_keys(self) -> bool:
        return self.mask == "insulated" and self.trained == "slots"

    def features(self, obs: Observation) -> Float[Tensor, "B ..."]:
        """What depends on single frames: keys and values (B,L,2,C,D) if frozen and insulated, else vision tokens.

        With `tokens` the former are laid in a row (B,2L,C,D), the frame's tokens after them.
        """
        seen_BND = self.backbone.see(obs.images)
        if not self._gives_keys:
            return seen_BND
        kv_BLXCD = self.backbone.scene_keys(seen_BND, obs.proprio)
        if not self.tokens:
            return kv_BLXCD
        return torch.cat([kv_BLXCD.flatten(1, 2), self.backbone.embed(seen_BND, obs.proprio).unsqueeze(1)], 1)

    def window(self, window: Window) -> Seen:
        """All frames of a window as one batch of B*T rows; kept features are used where the window has them."""
        obs = window.obs.flat()
        kept = window.features
        return self.meet(self.features(obs) if kept is None else kept.flatten(0, 1), obs)

    def see(self, obs: Observation) -> Seen:
        """Frames of one tick."""
        return self.meet(self.features(obs), obs)

    def meet(self, features: Tensor, obs: Observation) -> Seen:
        """Features of frames with their proprioception and text."""
        if self.mask == "full":
            scene = self.backbone.embed(features, obs.proprio)
            return Seen(scene, *self.backbone.text(obs.instruction), scene if self.tokens else None)
        tokens = None
        if self.tokens and self._gives_keys:
            features, tokens = features[:, :-1].unflatten(1, (-1, 2)), features[:, -1]
        elif self.tokens:
            tokens = self.backbone.embed(features, obs.proprio)
        if not self._gives_keys:
            features = self.backbone.scene_keys(features, obs.proprio)
        return Seen(features, *self.backbone.text_keys(obs.instruction), tokens)


class Head(nn.Module):
    """The action slots and the expert, in the environment's units."""

    def __init__(self, expert: Regression, action: Normaliser):
        super().__init__()
        self.expert, self.action = expert, action

    def plan(self, backbone: Tiny, keys: Keys) -> Float[Tensor, "B N A"]:
        """The chunk that the slots read off the keys and values."""
        return self.actions(self._hidden(backbone, keys))

    def slots(self, rows: int) -> Float[Tensor, "B N D"]:
        """The action slots as they enter the backbone."""
        return self.expert.slots.expand(rows, -1, -1)

    def actions(self, hidden_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B N A"]:
        """The chunk in the environment's units."""
        return self.action.inverse(self.expert(hidden_BND))

    def loss(self, backbone: Tiny, keys: Keys, window: Window) -> Tensor:
        """Loss of all valid ticks of a window in one batch; `keys` has a row for each. Padding does not count."""
        use = window.valid.flatten()
        target_BNA, ok_BN = window.target.flatten(0, 1)[use], window.target_ok.flatten(0, 1)[use]
        weight_B = None if window.weight is None else window.weight.flatten()[use]
        return self.expert.loss(self._hidden(backbone, keys), self.action(target_BNA), ok_BN, weight_B)

    def _hidden(self, backbone: Tiny, keys: Keys) -> Tensor:
        return backbone.ask(self.slots(keys.ok.shape[0]), *keys)[0]
