"""The order "through": memory tokens go through the backbone together with the observation (muVLA, arXiv 2606.12497).

    observe   context pass: scene, text and memory; the hidden states at the memory positions are written
    act       action slots against the keys and values of the context pass
    loss      the same two, over a window: vision in one batch, the memory chain tick by tick, all actions in one batch

The memory-action guard (the context never sees an action slot) is what makes this split exact. Without a memory (m = 0)
this is the plain, memoryless policy. `tbptt` is K: the gradient crosses at most K ticks, whatever the optimizer's cadence.

Legend: B rows, T ticks, M memory tokens, D width.
"""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from engram import carry as carries
from engram.carry import Carry
from engram.memory.recurrent import Recurrent
from engram.policies.base import Policy
from engram.policies.trunk import Head, Keys, Seen, Trunk
from engram.types import Chunk, Observation, Spec, Window


class Through(Policy):
    """muVLA on a backbone of two streams; `memory=None` is the memoryless reference.

    tbptt     K >= 1 ticks, or None for the whole window (with episode-aligned windows: the whole episode)
    replan    ticks between two plans in deployment, 1..chunk; memory is written at every tick whatever it is
    """

    def __init__(
        self, spec: Spec, trunk: Trunk, memory: Recurrent | None, head: Head, tbptt: int | None = None, replan: int = 1
    ):
        super().__init__()
        self.spec, self.trunk, self.memory, self.head = spec, trunk, memory, head
        self.chunk, self.tbptt, self.replan = head.expert.slots.shape[0], tbptt, replan
        if tbptt is not None and tbptt < 1:
            raise ValueError(f"K (tbptt): expected at least 1 tick, or none for the whole window, found {tbptt}")
        if not 1 <= replan <= self.chunk:
            raise ValueError(f"replan: expected 1 to {self.chunk} ticks (the chunk), found {replan}")
        # Identity of the memory positions, as RoPE gives it in the paper's backbone.
        self.place = None if memory is None else nn.Parameter(0.02 * torch.randn_like(memory.initial))

    def init(self, batch: int) -> Carry:
        return {} if self.memory is None else self.memory.init(batch)

    def observe(self, carry: Carry, obs: Observation, first_B: Bool[Tensor, "B"]) -> Carry:
        carry = carries.where(first_B, self.init(len(first_B)), carries.lasting(carry))
        carry, keys = self._context(carry, self.trunk.see(obs), obs.tick, torch.ones_like(first_B))
        return {**carry, "now/kv": keys.kv, "now/ok": keys.ok}

    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        return Chunk(self.head.plan(self.trunk.backbone, Keys(carry["now/kv"], carry["now/ok"]))), carry

    def loss(self, carry: Carry, window: Window) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        seen = self.trunk.window(window)
        if self.memory is None:
            carry, keys = self._context(carry, seen, window.obs.tick.flatten(), window.valid.flatten())
        else:
            carry, keys = self._chain(carry, seen, window)
        loss = self.head.loss(self.trunk.backbone, keys, window)
        return loss, carry, {"loss": loss.detach()}

    def _chain(self, carry: Carry, seen: Seen, window: Window) -> tuple[Carry, Keys]:
        """The context pass tick by tick: the carry after the window, and keys and values of all its B*T ticks."""
        rows, ticks = window.first.shape
        fresh = self.init(rows)
        scene, text, text_ok = (t.unflatten(0, (rows, ticks)) for t in (seen.scene, seen.text, seen.text_ok))
        kept = []
        for t in range(ticks):
            if self.tbptt is not None and t % self.tbptt == 0:
                carry = carries.detach(carry)
            carry = carries.where(window.first[:, t], fresh, carry)
            now = Seen(scene[:, t], text[:, t], text_ok[:, t])
            carry, keys = self._context(carry, now, window.obs.tick[:, t], window.valid[:, t])
            kept.append(keys)
        return carry, Keys(*(torch.stack(parts, 1).flatten(0, 1) for parts in zip(*kept, strict=True)))

    def _context(self, carry: Carry, seen: Seen, tick_B: Tensor, write_B: Tensor) -> tuple[Carry, Keys]:
        """The context pass of one tick: memory written where asked, and what action slots may attend to."""
        backbone = self.trunk.backbone
        slots_BMD = self._slots(carry, seen, tick_B)
        if self.trunk.mask == "full":
            hidden_BMD, *keys = backbone.think(seen.scene, seen.text, seen.text_ok, slots_BMD)
            keys = Keys(*keys)
        elif self.memory is None:
            return carry, seen.keys()
        else:
            keys = seen.keys()
            hidden_BMD, kv = backbone.ask(slots_BMD, *keys)
            keys = keys.join(kv)
        return (carry if self.memory is None else self.memory.write(carry, hidden_BMD, tick_B, write_B)), keys

    def _slots(self, carry: Carry, seen: Seen, tick_B: Tensor) -> Tensor:
        """Memory tokens at their places (none without a memory)."""
        nothing = seen.text.new_zeros(len(tick_B), 0, self.trunk.backbone.width)
        if self.memory is None:
            return nothing
        return self.memory.read(carry, nothing, tick_B)[0] + self.place
