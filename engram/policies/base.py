"""The contract of a policy: observe at every tick, act when planning, learn from the same step."""

import abc

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from engram.carry import Carry
from engram.types import Chunk, Observation, Spec, Window

WRITES = "count/writes"  # of a policy with a memory, int64 (B,): how often each row has been written in its episode

SEED = "expert/seed"  # of a policy that draws, int64 (B,): what the chance of each row's episode follows from


def remembering(memory: Carry, batch: int) -> Carry:
    """What `batch` episodes start with: a memory's `init`, and no write yet."""
    return {**memory, WRITES: torch.zeros(batch, dtype=torch.int64, device=next(iter(memory.values())).device)}


def counted(before: Carry, memory: Carry, mask_B: Bool[Tensor, "B"]) -> Carry:
    """What a write made of a carry, `memory`, with one more write of the rows in `mask_B` than `before`.

    Called with every write and nowhere else: what evaluation counts is what was done.
    """
    return {**memory, WRITES: before[WRITES] + mask_B}


class Policy(nn.Module, abc.ABC):
    """A robot policy whose memory is a value. Nothing of an episode ever lives on the module.

    spec      what it observes and what it commands
    chunk     actions planned at once; replan: ticks between two plans in deployment, 1..chunk
    ensemble  weight of each older plan in what is played, relative to the next newer one; 0 to 1
    """

    spec: Spec
    chunk: int
    replan: int
    ensemble: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where its weights are, and with them all that it computes."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    def writes(self, ticks: int) -> range:
        """How many writes of memory an episode of so many ticks may hold: one each, where no rule says otherwise."""
        return range(ticks, ticks + 1)

    @abc.abstractmethod
    def init(self, batch: int) -> Carry:
        """The carry that `batch` episodes start with: lasting keys only; pure."""

    @abc.abstractmethod
    def observe(self, carry: Carry, obs: Observation, first_B: Bool[Tensor, "B"]) -> Carry:
        """Perceive one control tick and write memory. Rows with `first` forget all before. Called at EVERY tick."""

    @abc.abstractmethod
    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        """Plan from the carry alone (its `now/...` entries come from `observe`). Called only when (re)planning."""

    def step(self, carry: Carry, obs: Observation, first_B: Bool[Tensor, "B"]) -> tuple[Chunk, Carry]:
        """Observe, then act: a tick at which every row plans. A policy may do both in one pass, to the same result."""
        return self.act(self.observe(carry, obs, first_B))

    @abc.abstractmethod
    def loss(self, carry: Carry, window: Window) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        """The same step over a window: scalar loss, the carry after it (lasting keys, in graph), detached metrics."""
