"""Two streams of weights that share attention: context tokens and slot tokens.

Context (image, proprioception, text) runs through one set of weights, slots (memory, actions, questions) through
another; a slot attends to the keys and values of the context and of other slots. Every function below returns the keys
and values it made, so that whoever comes later (the next group of tokens, the next call) can attend to them.

Readers are the last slots of a group that nobody but they themselves may see, such as action slots beside memory: one
pass then gives what two would, the second against the keys and values of the first.

Legend: B rows, N tokens, D width, H heads, E = D/H, L layers. `kv_BLXND` holds keys (X=0) and values (X=1) of all
layers; a list of `kv_BXND` has one per layer. `ok_BN` is True where a token may be attended to.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Layer(nn.Module):
    """The weights of one pre-norm transformer layer of one stream; attention itself is done by the caller."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def project(self, x_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B,N,D) and keys with values (B,2,N,D)."""
        width = x_BND.shape[-1]
        q_BND, kv_BNE = self.qkv(self.norm_attention(x_BND)).split([width, 2 * width], -1)
        return q_BND, kv_BNE.unflatten(-1, (2, width)).transpose(1, 2)

    def keys(self, x_BND: Tensor) -> Tensor:
        """Keys with values (B,2,N,D) alone: all that is wanted of the last layer of tokens that nobody reads."""
        width = x_BND.shape[-1]
        kv_BNE = F.linear(self.norm_attention(x_BND), self.qkv.weight[width:], self.qkv.bias[width:])
        return kv_BNE.unflatten(-1, (2, width)).transpose(1, 2)

    def attend(self, q_BND: Tensor, kv_BXND: Tensor, ok_BQN: Tensor | None, readers: int = 0) -> Tensor:
        """Softmax attention of the queries over keys and values; `ok` is (B,1,N) or (B,Q,N), (B,1,N) with readers."""
        if readers:
            ok = None if ok_BQN is None else ok_BQN[..., :-readers]
            others_BND = self.attend(q_BND[:, :-readers], kv_BXND[:, :, :-readers], ok)
            return torch.cat([others_BND, self.attend(q_BND[:, -readers:], kv_BXND, ok_BQN)], 1)
        q, k, v = (self._split(t) for t in (q_BND, *kv_BXND.unbind(1)))
        mask = None if ok_BQN is None else ok_BQN.unsqueeze(1)
        return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)

    def finish(self, x_BND: Tensor, attended_BND: Tensor) -> Tensor:
        """Residual of attention, then of the MLP."""
        x_BND = x_BND + self.out(attended_BND)
        return x_BND + self.down(F.gelu(self.up(self.norm_mlp(x_BND))))

    def _split(self, t_BND: Tensor) -> Tensor:
        return t_BND.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Stream(nn.Module):
    """L layers and the final norm of one set of weights."""

    def __init__(self, width: int, heads: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(width)


def alone(
    stream: Stream, x_BND: Float[Tensor, "B N D"], ok_BN: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, "B L 2 N D"]:
    """A block of tokens that sees only itself; its keys and values at every layer; nobody reads what follows."""
    made = []
    for layer in stream.layers[:-1]:
        q_BND, kv_BXND = layer.project(x_BND)
        made.append(kv_BXND)
        x_BND = layer.finish(x_BND, layer.attend(q_BND, kv_BXND, _keys(ok_BN)))
    return torch.stack([*made, stream.layers[-1].keys(x_BND)], 1)


def against(
    stream: Stream,
    x_BND: Float[Tensor, "B N D"],
    past: Float[Tensor, "B L 2 M D"] | Sequence[Float[Tensor, "B L 2 _ D"]],
    past_ok_BM: Bool[Tensor, "B M"] | None = None,
    readers: int = 0,
) -> tuple[Float[Tensor, "B N D"], list[Tensor]]:
    """Tokens that see each other and given keys and values; of the last `readers` of them the others see nothing.

    The past may come in pieces, one after the other along M, some in half precision: nothing is copied but here.
    Returns their hidden states and their keys and values, (B,2,N,D) for each layer.
    """
    ok_B1N = _keys(past_ok_BM, own=x_BND.shape[1])
    made = []
    # unbind, not indexing: the gradient of each index would be a tensor of zeros as large as the whole past
    pieces = [past] if isinstance(past, Tensor) else past
    for layer, *past_BXMD in zip(stream.layers, *(piece.unbind(1) for piece in pieces), strict=True):
        q_BND, kv_BXND = layer.project(x_BND)
        made.append(kv_BXND)
        x_BND = layer.finish(x_BND, layer.attend(q_BND, torch.cat([*past_BXMD, kv_BXND], 2), ok_B1N, readers))
    return stream.norm(x_BND), made


def together(
    context: Stream,
    x_BCD: Float[Tensor, "B C D"],
    slots: Stream,
    x_BND: Float[Tensor, "B N D"],
    ok_BC: Bool[Tensor, "B C"] | None = None,
    readers: int = 0,
) -> tuple[Float[Tensor, "B N D"], list[Tensor]]:
    """Context and slots in one bidirectional attention, each by its own weights; M = C + N.

    All but the last `readers` slots, which see everything and are seen by none but each other. In the last layer the
    context gives keys and values alone: nobody reads what would follow.
    Returns the hidden states of the slots and the keys and values of both, (B,2,M,D) for each layer.
    """
    size, ok_B1M = x_BCD.shape[1], _keys(ok_BC, own=x_BND.shape[1])
    made = []
    for theirs, ours in zip(context.layers[:-1], slots.layers[:-1], strict=True):
        (qc_BCD, kvc), (qs_BND, kvs) = theirs.project(x_BCD), ours.project(x_BND)
        made.append(torch.cat([kvc, kvs], 2))
        seen_BMD = ours.attend(torch.cat([qc_BCD, qs_BND], 1), made[-1], ok_B1M, readers)
        x_BCD, x_BND = theirs.finish(x_BCD, seen_BMD[:, :size]), ours.finish(x_BND, seen_BMD[:, size:])
    q_BND, kvs = slots.layers[-1].project(x_BND)
    made.append(torch.cat([context.layers[-1].keys(x_BCD), kvs], 2))
    x_BND = slots.layers[-1].finish(x_BND, slots.layers[-1].attend(q_BND, made[-1], ok_B1M, readers))
    return slots.norm(x_BND), made


def masked(
    context: Stream, slots: Stream, x_BND: Float[Tensor, "B N D"], is_context_N: Tensor, ok_BNN: Bool[Tensor, "B N N"]
) -> Float[Tensor, "B N D"]:
    """The plain reference of all the above: one pass over all tokens under a dense mask; final hidden states.

    `is_context_N` is bool and says which stream's weights a token uses; `ok_BNN` which key (last axis) it may see.
    """
    pick = is_context_N[None, :, None]
    for theirs, ours in zip(context.layers, slots.layers, strict=True):
        (qc, kvc), (qs, kvs) = theirs.project(x_BND), ours.project(x_BND)
        seen_BND = ours.attend(torch.where(pick, qc, qs), torch.where(pick.unsqueeze(1), kvc, kvs), ok_BNN)
        x_BND = torch.where(pick, theirs.finish(x_BND, seen_BND), ours.finish(x_BND, seen_BND))
    return torch.where(pick, context.norm(x_BND), slots.norm(x_BND))


def _keys(ok_BN: Tensor | None, own: int = 0) -> Tensor | None:
    """A key mask (B,1,N+own); tokens always see their own group."""
    if ok_BN is None:
        return None
    return F.pad(ok_BN, (0, own), value=True).unsqueeze(1)
