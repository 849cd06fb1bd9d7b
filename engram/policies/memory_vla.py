"""MemoryVLA (arXiv 2508.19236): perceive, look into the bank, act by diffusion.

    perceive  a frame gives perceptual tokens (vision, squeezed) and one cognitive token (what a slot of the backbone
              makes of scene and instruction), whatever is remembered: all frames of a window in one batch
    observe   both streams read the bank and are fused with it; then what was perceived is written
    act       a diffusion transformer plans from the fused tokens, from noise that follows from seed and tick

Without a bank this is the memoryless diffusion policy. A rule says at which ticks the bank is written, in training,
evaluation and serving alike (memory/when.py).

Legend: B rows, T ticks, P perceptual tokens, N = P + 1 tokens, D width, A action.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from engram import carry as carries
from engram import draws
from engram.backbones.bottleneck import Bottleneck
from engram.carry import Carry
from engram.data.normalise import Normaliser
from engram.experts.diffusion import Diffusion
from engram.memory.bank import WRITTEN, Bank
from engram.memory.when import Every, Rule, due_in
from engram.policies.base import SEED, WRITES, Policy, counted, remembering
from engram.policies.trunk import Seen, Trunk
from engram.types import Chunk, Observation, Spec, Window

SHOWN = "expert/shown"  # int64 (B,): ticks seen in all episodes. As SEED, no memory: `first` leaves it alone
PARTS = {"both": slice(None), "perceptual": slice(None, -1), "cognitive": slice(-1, None)}  # of a frame's tokens


class Perception(nn.Module):
    """A frame as the tokens that memory and the expert work with: P perceptual ones and, last, a cognitive one."""

    def __init__(self, trunk: Trunk, views: tuple[int, ...]):
        super().__init__()
        width = trunk.backbone.width
        self.squeeze = Bottleneck(views, width, width)
        self.slot = nn.Parameter(trunk.backbone.question.detach().clone())
        self.norm = nn.LayerNorm(width)

    def forward(self, trunk: Trunk, seen: Seen) -> Float[Tensor, "B N D"]:
        """Tokens of frames that met their text."""
        assert seen.tokens is not None, "a trunk that gives tokens"
        slot_BND, backbone = self.slot.expand(len(seen.tokens), -1, -1), trunk.backbone
        if trunk.mask == "full":
            meaning_BND = backbone.think(seen.scene, seen.text, seen.text_ok, slot_BND)[0]
        else:
            meaning_BND = backbone.ask(slot_BND, *seen.keys())[0]
        return torch.cat([self.squeeze(seen.tokens), self.norm(meaning_BND)], 1)


class MemoryVLA(Policy):
    """Perception, bank and diffusion expert.

    bank     over the streams named in `streams`; None for the memoryless policy
    streams  "both", or the one that the bank keeps; the other goes by it
    rule     when the bank is written
    """

    def __init__(
        self,
        spec: Spec,
        trunk: Trunk,
        perception: Perception,
        bank: Bank | None,
        expert: Diffusion,
        action: Normaliser,
        replan: int = 1,
        streams: str = "both",
        rule: Rule | None = None,
    ):
        super().__init__()
        self.chunk = expert.chunk
        if not 1 <= replan <= self.chunk:
            raise ValueError(f"replan: expected 1 to {self.chunk} ticks (the chunk), found {replan}")
        self.spec, self.trunk, self.perception, self.memory = spec, trunk, perception, bank
        self.expert, self.action = expert, action
        self.replan, self.rule, self.streams, self._part = replan, rule or Every(), streams, PARTS[streams]

    def extra_repr(self) -> str:
        return f"streams={self.streams}, rule={self.rule}"

    def writes(self, ticks: int) -> range:
        return self.rule.writes(ticks)

    def init(self, batch: int) -> Carry:
        zero_B = torch.zeros(batch, dtype=torch.int64, device=self.device)
        chance = {SEED: zero_B, SHOWN: zero_B.clone()}
        if self.memory is None:
            return chance
        return remembering(self.memory.init(batch) | self.rule.init(batch, self.device), batch) | chance

    def observe(self, carry: Carry, obs: Observation, first_B: Bool[Tensor, "B"]) -> Carry:
        carry = self._begun(carries.lasting(carry), first_B)
        x_BND = self.perception(self.trunk, self.trunk.see(obs))
        if self.memory is not None:
            kept_BND = self._kept(x_BND)
            fused_BND = self.memory.read(carry, kept_BND, obs.tick)[0]
            written_BND = fused_BND if self.memory.write_fused else kept_BND
            write_B, due = self.rule.due(carry, obs.proprio, obs.tick)
            after = self.memory.write(carry, written_BND, obs.tick, write_B)
            carry = counted(carry, after | carries.where(write_B, due, {key: carry[key] for key in due}), write_B)
            x_BND = self._with(x_BND, fused_BND)
        shown = {SHOWN: carry[SHOWN] + 1}
        return carry | shown | {"now/tokens": x_BND, "now/tick": obs.tick}

    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        x_BND = carry["now/tokens"]
        noise_BNA = draws.normal(draws.mix(carry[SEED], carry["now/tick"]), self.chunk, self.spec.action_dim)
        plan_BNA = self.expert.sample(x_BND[:, -1], x_BND[:, :-1], noise_BNA)
        return Chunk(self.action.inverse(plan_BNA)), carry

    def loss(self, carry: Carry, window: Window) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        x_BTND, after = self._window(carry, window)
        use = window.valid.flatten()
        x_BND, target_BNA = x_BTND.flatten(0, 1)[use], self.action(window.target.flatten(0, 1)[use])
        ok_BN = window.target_ok.flatten(0, 1)[use]
        weight_B = None if window.weight is None else window.weight.flatten()[use]
        key_BT = draws.mix(carry[SEED][:, None], carry[SHOWN][:, None] + window.valid.cumsum(1), window.frame)
        loss = self.expert.loss(x_BND[:, -1], x_BND[:, :-1], target_BNA, ok_BN, key_BT.flatten()[use], weight_B)
        return loss, after, {"loss": loss.detach()}

    def plans(self, carry: Carry, window: Window) -> Float[Tensor, "B T N A"]:
        """The plans that `act` would make at the ticks of a window."""
        x_BTND = self._window(carry, window)[0]
        seed_BT = carry[SEED][:, None].expand(window.first.shape)
        now = {"now/tokens": x_BTND.flatten(0, 1), "now/tick": window.obs.tick.flatten(), SEED: seed_BT.flatten()}
        return self.act(now)[0].actions.unflatten(0, window.first.shape)

    def _window(self, carry: Carry, window: Window) -> tuple[Float[Tensor, "B T N D"], Carry]:
        """Fused tokens of all ticks, and the carry after them."""
        x_BTND = self.perception(self.trunk, self.trunk.window(window)).unflatten(0, window.first.shape)
        shown = {SEED: carry[SEED], SHOWN: carry[SHOWN] + window.valid.sum(1)}
        if self.memory is None:
            return x_BTND, shown
        obs = window.obs
        write_BT, due = due_in(self.rule, carry, obs.proprio, obs.tick, window.first, window.valid)
        fused_BTND, after = self.memory.window(carry, self._kept(x_BTND), obs.tick, window.first, write_BT)
        return self._with(x_BTND, fused_BTND), after | due | {WRITES: after[WRITTEN].clone()} | shown

    def _begun(self, carry: Carry, first_B: Tensor) -> Carry:
        """What an episode's first tick forgets."""
        fresh = self.init(len(first_B)) | carries.select(carry, "expert/")
        return carries.where(first_B, fresh, carry)

    def _kept(self, x: Float[Tensor, "*rows N D"]) -> Float[Tensor, "*rows M D"]:
        """The tokens of the streams that the bank keeps."""
        return x[..., self._part, :]

    def _with(self, x: Float[Tensor, "*rows N D"], fused: Float[Tensor, "*rows M D"]) -> Float[Tensor, "*rows N D"]:
        """All tokens, those of the bank's streams as they were fused."""
        before, after = x[..., : self._part.start or 0, :], x[..., self._part.stop or x.shape[-2] :, :]
        return torch.cat([before, fused, after], -2)
