"""The order "before": frames are encoded without memory, all of a window in one batch; then the memory runs.

Here it carries the two references beside muVLA: the first frame, or the last frames, shown to the policy next to the
present one (muVLA, arXiv 2606.12497, compares with the first). At tick t the memory holds frames before t; the present
frame is written after.

Legend: B rows, T ticks, N tokens of a frame, F frames kept, D width, L layers, X keys and values.
"""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from engram import carry as carries
from engram.carry import Carry
from engram.memory.base import Memory
from engram.policies.base import Policy, counted, remembering
from engram.policies.trunk import Head, Keys, Seen, Trunk
from engram.types import Chunk, Observation, Spec, Window


class Before(Policy):
    """A memory of whole frames: `memory` keeps `frames` of them, each as the tokens that `Trunk` makes of one frame."""

    def __init__(self, spec: Spec, trunk: Trunk, memory: Memory, frames: int, head: Head, replan: int = 1):
        super().__init__()
        self.spec, self.trunk, self.memory, self.head = spec, trunk, memory, head
        self.chunk, self.frames, self.replan = head.expert.slots.shape[0], frames, replan
        if not 1 <= replan <= self.chunk:
            raise ValueError(f"replan: expected 1 to {self.chunk} ticks (the chunk), found {replan}")
        # Tells the frames kept from the present one, and from one another.
        self.age = nn.Parameter(0.02 * torch.randn(frames, 1, trunk.backbone.width))

    def init(self, batch: int) -> Carry:
        return remembering(self.memory.init(batch), batch)

    def observe(self, carry: Carry, obs: Observation, first_B: Bool[Tensor, "B"]) -> Carry:
        carry = carries.where(first_B, self.init(len(first_B)), carries.lasting(carry))
        seen = self.trunk.see(obs)
        carry, past = self._remember(carry, self._tokens(seen.scene), obs.tick, torch.ones_like(first_B))
        keys = self._keys(seen, *past)
        return {**carry, "now/kv": keys.whole(), "now/ok": keys.ok}

    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        return Chunk(self.head.plan(self.trunk.backbone, Keys((carry["now/kv"],), carry["now/ok"]))), carry

    def loss(self, carry: Carry, window: Window) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        seen = self.trunk.window(window)
        tokens = self._tokens(seen.scene).unflatten(0, window.first.shape)
        fresh, kept = self.init(tokens.shape[0]), []
        for t in range(window.ticks):
            carry = carries.where(window.first[:, t], fresh, carry)
            carry, past = self._remember(carry, tokens[:, t], window.obs.tick[:, t], window.valid[:, t])
            kept.append(past)
        shown = (torch.stack(parts, 1).flatten(0, 1) for parts in zip(*kept, strict=True))
        loss = self.head.loss(self.trunk.backbone, self._keys(seen, *shown).rows(window.valid.flatten()), window)
        return loss, carry, {"loss": loss.detach()}

    def _remember(self, carry: Carry, x_BND: Tensor, tick_B: Tensor, write_B: Tensor) -> tuple[Carry, tuple]:
        """What the memory showed before this tick, and the carry after it."""
        past = self.memory.read(carry, x_BND, tick_B)
        kept = self.memory.write(carries.select(carry, "memory/"), x_BND, tick_B, write_B)
        return counted(carry, kept, write_B), past

    def _tokens(self, scene: Tensor) -> Tensor:
        """A frame as tokens (B,N,D): embedded tokens, or keys and values of all layers laid in a row."""
        return scene if self.trunk.mask == "full" else scene.float().flatten(1, 3)

    def _keys(self, seen: Seen, past_BND: Tensor, ok_BN: Tensor) -> Keys:
        """What action slots may attend to: present scene, text and the frames kept."""
        past_BFND, ok_BFN = (t.unflatten(1, (self.frames, -1)) for t in (past_BND, ok_BN))
        if self.trunk.mask == "full":
            return self._think(seen, (past_BFND + self.age).flatten(1, 2), ok_BN)
        layers, tokens = seen.scene.shape[1], seen.scene.shape[3]
        kv = past_BFND.unflatten(2, (layers, 2, tokens)) + self.age[:, None, None]
        kv, ok = kv.permute(0, 2, 3, 1, 4, 5).flatten(3, 4), ok_BFN[:, :, :tokens].flatten(1)
        return seen.keys().join(kv, ok)

    def _think(self, seen: Seen, past_BND: Tensor, ok_BN: Tensor) -> Keys:
        """Full: one attention over all; the past goes with the text, the part of the context that has a mask."""
        text, text_ok = torch.cat([past_BND, seen.text], 1), torch.cat([ok_BN, seen.text_ok], 1)
        _, kv, ok = self.trunk.backbone.think(seen.scene, text, text_ok, seen.text[:, :0])
        return Keys((kv,), ok)
