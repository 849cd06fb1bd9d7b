"""What the present reads from entries of the past, by cross-attention, and how the two are fused (MemoryVLA, arXiv
2508.19236, 3.2). One stream of tokens.

q = tokens of now, k = entry + time, v = entry: all tokens of all entries, each entry's time on each of its tokens.

compact   pre-norm, several heads, an output projection that starts at zero: a memory that says nothing yet leaves the
          present as it is
paper     post-norm, one head as wide as the tokens, no output projection, two blocks; gates start at one half

A token looks at its own place first, where what it shows was, is or will be; other places are there, too, but among a
few hundred keys that all weigh alike the one that matters is hard to find for a reader that has learned nothing yet.
The paper's form has no such preference.

Keys and values of a single head need no projection of the entries: q (W m) = (q W) m, and the sum of W m is W of the
sum. So a step reads what is kept as it is kept, and there is nothing to cache.

Legend: B rows, N tokens of now, L entries, M tokens of all entries, D width, H heads.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

LONGEST = 10_000.0  # base of the sinusoids
OWN_PLACE = 4.0  # what is added to the score of a token for what was at its own place: e^4 times the weight, at first
Look = Callable[[Tensor], Tensor]  # queries (B,N,D) to what they see of entries (B,N,D)


class Past(NamedTuple):
    """Entries as the blocks attend to them: one pair of keys and values (B,L,N,D) for each block.

    A block with a single head takes the entries themselves for both.
    """

    keys: tuple[Float[Tensor, "*lead D"], ...]
    values: tuple[Float[Tensor, "*lead D"], ...]


class TimeCode(nn.Module):
    """Times (ticks, or numbers of writes) as vectors: sinusoids through two layers."""

    def __init__(self, width: int):
        super().__init__()
        self.waves = max(2, width // 8)
        self.body = nn.Sequential(nn.Linear(2 * self.waves, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Float[Tensor, "*lead"]) -> Float[Tensor, "*lead D"]:
        """Their codes."""
        rate = LONGEST ** (-torch.arange(self.waves, device=time.device) / self.waves)
        angle = time[..., None] * rate
        return self.body(torch.cat([angle.cos(), angle.sin()], -1))


class Block(nn.Module):
    """One cross-attention with its feed-forward net."""

    def __init__(self, width: int, heads: int, form: Literal["compact", "paper"]):
        super().__init__()
        self.heads, self.form, self.own = heads, form, OWN_PLACE if form == "compact" else 0.0
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.norm, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        down = nn.Linear(4 * width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), down)
        self.out: nn.Module = nn.Identity()
        if form == "compact":
            self.out = out = nn.Linear(width, width)
            for weight in (*out.parameters(), *down.parameters()):
                nn.init.zeros_(weight)

    def extra_repr(self) -> str:
        """What the tensors of a block do not show."""
        return f"form={self.form}, heads={self.heads}, own={self.own}"

    def project(self, entries: Float[Tensor, "*lead D"]) -> tuple[Tensor, Tensor]:
        """Keys and values of entries, before they know their time; a single head takes the entries themselves."""
        if self.heads == 1:
            return entries, entries
        return self.key(entries), F.linear(entries, self.value.weight)

    def forward(self, x_BND: Tensor, look: Look) -> Float[Tensor, "B N D"]:
        """Tokens after this block, which looks at entries with its queries."""
        if self.form == "paper":
            x_BND = self.norm(x_BND + self._attend(x_BND, look))
            return self.norm_after(x_BND + self.feed(x_BND))
        x_BND = x_BND + self.out(self._attend(self.norm(x_BND), look))
        return x_BND + self.feed(self.norm_after(x_BND))

    def look(
        self,
        q_BND: Tensor,
        k_BLND: Tensor,
        v_BLND: Tensor,
        code_BLD: Tensor | None = None,
        ok_BL: Tensor | None = None,
    ) -> Float[Tensor, "B N D"]:
        """What queries see of entries that know their time by `code`; `ok` says which there are, None: all."""
        if code_BLD is not None:
            k_BLND = k_BLND + (code_BLD if self.heads == 1 else self.key(code_BLD)).unsqueeze(2)
        tokens = (q_BND, k_BLND.flatten(1, 2), v_BLND.flatten(1, 2))
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in tokens)
        seen_BHNE = F.scaled_dot_product_attention(q, k, v, self._mask(k_BLND, ok_BL))
        return seen_BHNE.transpose(1, 2).flatten(2)

    def _mask(self, k_BLND: Tensor, ok_BL: Tensor | None) -> Tensor | None:
        """What is added to scores, (B or 1,1,N or 1,M): which entries there are, a token's preference for its place."""
        entries, tokens = k_BLND.shape[1:3]
        near_1NM = None
        if self.own and tokens > 1:
            near_1NM = self.own * torch.eye(tokens, device=k_BLND.device).repeat(1, entries)[None, None]
        if ok_BL is None:
            return near_1NM
        ok_B1M = ok_BL.repeat_interleave(tokens, 1)[:, None, None]
        return ok_B1M if near_1NM is None else torch.where(ok_B1M, near_1NM, -torch.inf)

    def _attend(self, x_BND: Tensor, look: Look) -> Tensor:
        q_BND = self.query(x_BND)
        if self.heads == 1:
            return self.value(look(q_BND @ self.key.weight))
        return look(q_BND) + self.value.bias


class Retrieval(nn.Module):
    """Reads one stream of a bank and fuses it with the present.

    form    "compact" or "paper", see above
    heads   of the compact form; the paper's has one
    blocks  cross-attentions after one another
    timed   whether keys know when an entry was written
    fusion  "gate": by token and channel, g x + (1 - g) h; "add": the mean of both
    """

    def __init__(
        self,
        width: int,
        form: Literal["compact", "paper"] = "compact",
        heads: int = 4,
        blocks: int = 1,
        timed: bool = True,
        fusion: Literal["gate", "add"] = "gate",
    ):
        super().__init__()
        heads = heads if form == "compact" else 1
        self.blocks = nn.ModuleList(Block(width, heads, form) for _ in range(blocks))
        self.code = TimeCode(width) if timed else None
        self.gate = nn.Linear(2 * width, width) if fusion == "gate" else None
        if self.gate is not None:
            for weight in self.gate.parameters():
                nn.init.normal_(weight, std=1e-3)

    def project(self, entries: Float[Tensor, "*lead D"]) -> Past:
        """Entries as the blocks attend to them."""
        keys, values = zip(*(block.project(entries) for block in self._blocks), strict=True)
        return Past(keys, values)

    def forward(
        self,
        x_BND: Float[Tensor, "B N D"],
        past: Past,
        time_BL: Float[Tensor, "B L"],
        ok_BL: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "B N D"]:
        """Tokens of now that know the past; a row without entries (`ok`) keeps its tokens as they are."""
        some_B = ok_BL.any(1)[:, None, None]
        ok_BL = ok_BL | ~some_B[:, 0]  # no softmax over nothing
        code_BLD = None if self.code is None else self.code(time_BL)
        h_BND = x_BND
        for block, k_BLND, v_BLND in zip(self._blocks, past.keys, past.values, strict=True):
            look = partial(block.look, k_BLND=k_BLND, v_BLND=v_BLND, code_BLD=code_BLD, ok_BL=ok_BL)
            h_BND = block(h_BND, look)
        return torch.where(some_B, self._fused(x_BND, h_BND), x_BND)

    def group(
        self, x_BTND: Float[Tensor, "B T N D"], past: Past, time_BTL: Float[Tensor, "B T L"]
    ) -> Float[Tensor, "B T N D"]:
        """The same where the entries of a tick are the ticks before it, keys and values (B,T,N,D) in `past`.

        A block-causal attention, block after block: nothing is masked, copied for each tick or computed in vain.
        """
        code_BTLD = None if self.code is None else self.code(time_BTL)
        h_RND = x_BTND.flatten(0, 1)
        for block, k_BTND, v_BTND in zip(self._blocks, past.keys, past.values, strict=True):
            h_RND = block(h_RND, partial(_earlier, block, k_BTND, v_BTND, code_BTLD))
        fused_BTND = self._fused(x_BTND, h_RND.view_as(x_BTND))
        return torch.cat([x_BTND[:, :1], fused_BTND[:, 1:]], 1)

    @property
    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    def _fused(self, x_BND: Tensor, h_BND: Tensor) -> Tensor:
        if self.gate is None:
            return 0.5 * (x_BND + h_BND)
        return torch.lerp(h_BND, x_BND, self.gate(torch.cat([x_BND, h_BND], -1)).sigmoid())


def _earlier(block: Block, k_BTND: Tensor, v_BTND: Tensor, code_BTLD: Tensor | None, q_RND: Tensor) -> Tensor:
    """What the queries of every tick see of the ticks before; those of the first see nothing."""
    q_TBND, k_TBND, v_TBND = q_RND.view_as(k_BTND).unbind(1), k_BTND.unbind(1), v_BTND.unbind(1)
    seen = [torch.zeros_like(q_TBND[0])]
    for t in range(1, len(q_TBND)):
        # Stacked anew at each tick: the gradient of a slice would be zeros as large as the whole.
        k_BLND, v_BLND = torch.stack(k_TBND[:t], 1), torch.stack(v_TBND[:t], 1)
        seen.append(block.look(q_TBND[t], k_BLND, v_BLND, None if code_BTLD is None else code_BTLD[:, t, :t]))
    return torch.stack(seen, 1).flatten(0, 1)
