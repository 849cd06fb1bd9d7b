"""The order "through": memory tokens go through the backbone together with the observation (muVLA, arXiv 2606.12497).

    observe   context pass: scene, text and memory; the hidden states at the memory positions are written
    act       action slots against the keys and values of the context pass
    step      both in one pass, for ticks at which every row plans
    loss      observe and act over a window: vision in one batch, memory tick by tick, all actions in one batch

The memory-action guard (the context never sees an action slot) is what makes this split exact. Without a memory (m = 0)
this is the plain, memoryless policy. `tbptt` is K: gradients cross at most K ticks, whatever the optimizer's cadence.

Legend: B rows, T ticks, M memory tokens, D width, S samples.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from engram import carry as carries
from engram.backbones.notes import SLOWEST, Notes
from engram.carry import Carry
from engram.memory.recurrent import Recurrent, gate_bias
from engram.policies.base import Policy, counted, remembering
from engram.policies.trunk import Head, Keys, Seen, Trunk
from engram.types import Chunk, Observation, Spec, Window

PLACE_STD = 0.02  # how far memory tokens begin from one another


class Through(Policy):
    """muVLA on a backbone of two streams; `memory=None` is the memoryless reference.

    pause     without a memory: tokens that think beside the scene at every tick but are not carried to the next. A
              memoryless policy of the same size and compute as one with so many memory tokens; 0 is the plain policy
    tbptt     K >= 1 ticks, or None for the whole window (with episode-aligned windows: the whole episode)
    replan    ticks between two plans in deployment, 1..chunk; memory is written at every tick whatever it is
    """

    def __init__(
        self,
        spec: Spec,
        trunk: Trunk,
        memory: Recurrent | None,
        head: Head,
        tbptt: int | None = None,
        replan: int = 1,
        pause: int = 0,
    ):
        super().__init__()
        self.spec, self.trunk, self.memory, self.head = spec, trunk, memory, head
        self.chunk, self.tbptt, self.replan = head.expert.slots.shape[0], tbptt, replan
        if tbptt is not None and tbptt < 1:
            raise ValueError(f"K (tbptt): expected at least 1 tick, or none for the whole window, found {tbptt}")
        if not 1 <= replan <= self.chunk:
            raise ValueError(f"replan: expected 1 to {self.chunk} ticks (the chunk), found {replan}")
        # Identity of the slots, as RoPE gives it in the paper's backbone; they begin as questions, too.
        slots = pause if memory is None else memory.initial.shape[0]
        question = trunk.backbone.question.detach()
        self.place = nn.Parameter(question + PLACE_STD * torch.randn(slots, question.shape[1])) if slots else None

    @torch.no_grad()
    def begin_with(self, notes: Notes) -> None:
        """Let untrained memory begin as the notes that the backbone was pretrained to take. ValueError without one."""
        if self.memory is None or self.place is None:
            raise ValueError("notes: expected a policy with a memory, found none (m=0); leave them out")
        self.place.copy_(notes.slot + PLACE_STD * torch.randn_like(self.place))
        self.memory.begin(notes.mean, notes.spread, gate_bias(len(notes.mean), SLOWEST))

    @torch.no_grad()
    def calibrate(self, windows: Iterable[Window]) -> None:
        """Centre and scale what memory writes by its hidden states on consecutive windows; padded ticks do not count.

        Changing what is written changes the hidden states, so call it twice. ValueError without a memory.
        """
        if self.memory is None:
            raise ValueError("calibrate: expected a policy with a memory, found none (m=0); leave it out")
        hidden_SMD: list[Tensor] = []
        carry: Carry | None = None
        for window in windows:
            carry = self.init(window.first.shape[0]) if carry is None else carry
            with _inputs(self.memory.standard) as h_TBMD:
                carry = self.loss(carry, window)[1]
            hidden_SMD.append(torch.stack(h_TBMD, 1)[window.valid])
        self.memory.standard.fit(torch.cat(hidden_SMD))

    def init(self, batch: int) -> Carry:
        return {} if self.memory is None else remembering(self.memory.init(batch), batch)

    def observe(self, carry: Carry, obs: Observation, first_B: Bool[Tensor, "B"]) -> Carry:
        carry = carries.where(first_B, self.init(len(first_B)), carries.lasting(carry))
        carry, keys = self._context(carry, self.trunk.see(obs), obs.tick, torch.ones_like(first_B))
        return {**carry, "now/kv": keys.whole(), "now/ok": keys.ok}

    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        return Chunk(self.head.plan(self.trunk.backbone, Keys((carry["now/kv"],), carry["now/ok"]))), carry

    def step(self, carry: Carry, obs: Observation, first_B: Bool[Tensor, "B"]) -> tuple[Chunk, Carry]:
        carry = carries.where(first_B, self.init(len(first_B)), carries.lasting(carry))
        seen, backbone, asks = self.trunk.see(obs), self.trunk.backbone, self.head.slots(len(first_B))
        slots_BMD = self._slots(carry, obs.tick)
        if self.trunk.mask == "full":
            hidden = backbone.think_at_once(slots_BMD, asks, seen.scene, seen.text, seen.text_ok)
        else:
            hidden = backbone.ask_at_once(slots_BMD, asks, *seen.keys())
        carry = self._write(carry, hidden[0], obs.tick, torch.ones_like(first_B))
        return Chunk(self.head.actions(hidden[1])), carry

    def loss(self, carry: Carry, window: Window) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        seen, use = self.trunk.window(window), window.valid.flatten()
        if self.memory is None:
            keys = self._context(carry, seen, window.obs.tick.flatten(), use)[1].rows(use)
        elif self.trunk.mask == "full":
            carry, keys = self._chain(carry, seen, window)
            keys = keys.rows(use)
        else:
            context = seen.keys()
            carry, made = self._insulated_chain(carry, context, window)
            keys = context.rows(use).join(made[use])
        loss = self.head.loss(self.trunk.backbone, keys, window)
        return loss, carry, {"loss": loss.detach()}

    def _chain(self, carry: Carry, seen: Seen, window: Window) -> tuple[Carry, Keys]:
        """Full: the context pass tick by tick; the carry after the window, what each of its B*T ticks can attend to."""
        parts = [t.unflatten(0, window.first.shape) for t in (seen.scene, seen.text, seen.text_ok)]
        kv, ok = [], []
        for t in range(window.ticks):
            carry = self._before(carry, window, t)
            now = Seen(*(part[:, t] for part in parts))
            carry, keys = self._context(carry, now, window.obs.tick[:, t], window.valid[:, t])
            kv.append(keys.whole())
            ok.append(keys.ok)
        return carry, Keys((torch.stack(kv, 1).flatten(0, 1),), torch.stack(ok, 1).flatten(0, 1))

    def _insulated_chain(self, carry: Carry, context: Keys, window: Window) -> tuple[Carry, Tensor]:
        """Insulated: memory alone runs tick by tick; the carry after the window, memory's keys and values (B*T,...).

        What memory attends to is there already for all ticks and is not copied from tick to tick.
        """
        *kv_BTLXMD, ok_BTM = (part.unflatten(0, window.first.shape) for part in (*context.kv, context.ok))
        kept = []
        for t in range(window.ticks):
            carry, now = self._before(carry, window, t), Keys(tuple(kv[:, t] for kv in kv_BTLXMD), ok_BTM[:, t])
            carry, made = self._remember(carry, now, window.obs.tick[:, t], window.valid[:, t])
            kept.append(made)
        return carry, torch.stack(kept, 1).flatten(0, 1)

    def _before(self, carry: Carry, window: Window, t: int) -> Carry:
        """What tick `t` of a window starts from: truncated every K ticks, forgotten where an episode starts."""
        if self.tbptt is not None and t % self.tbptt == 0:
            carry = carries.detach(carry)
        return carries.where(window.first[:, t], self.init(window.first.shape[0]), carry)

    def _context(self, carry: Carry, seen: Seen, tick_B: Tensor, write_B: Tensor) -> tuple[Carry, Keys]:
        """The context pass of one tick: memory written where asked, and what action slots may attend to."""
        if self.trunk.mask == "insulated":
            keys = seen.keys()
            if self.place is None:
                return carry, keys
            carry, made = self._remember(carry, keys, tick_B, write_B)
            return carry, keys.join(made)
        slots_BMD = self._slots(carry, tick_B)
        hidden_BMD, kv, ok = self.trunk.backbone.think(seen.scene, seen.text, seen.text_ok, slots_BMD)
        return self._write(carry, hidden_BMD, tick_B, write_B), Keys((kv,), ok)

    def _remember(self, carry: Carry, keys: Keys, tick_B: Tensor, write_B: Tensor) -> tuple[Carry, Tensor]:
        """Insulated: the carry after memory has read the scene, and memory's own keys and values (B,L,2,M,D)."""
        hidden_BMD, made = self.trunk.backbone.ask(self._slots(carry, tick_B), *keys)
        return self._write(carry, hidden_BMD, tick_B, write_B), made

    def _write(self, carry: Carry, hidden_BMD: Tensor, tick_B: Tensor, write_B: Tensor) -> Carry:
        if self.memory is None:
            return carry
        return counted(carry, self.memory.write(carries.select(carry, "memory/"), hidden_BMD, tick_B, write_B), write_B)

    def _slots(self, carry: Carry, tick_B: Tensor) -> Tensor:
        """Memory tokens, or the tokens that only think, at their places."""
        nothing = self.trunk.backbone.place.new_zeros(len(tick_B), 0, self.trunk.backbone.width)
        if self.place is None:
            return nothing
        if self.memory is None:
            return self.place.expand(len(tick_B), -1, -1)
        return self.memory.read(carry, nothing, tick_B)[0] + self.place


@contextmanager
def _inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """What `module` is called with in here, call by call."""
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    try:
        yield seen
    finally:
        hook.remove()
