"""The diffusion expert: equal to a plain network (benchmarks/p1.py), what counts and what does not, that it learns.

Legend: as in engram/experts/diffusion.py.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import p1
from engram import draws
from engram.experts.diffusion import Block, Dense, Diffusion, kept, sampled_steps

SMALL = p1.Shape(rows=3, chunk=4, perception=6, size="xs", widths=(10, 5))


@pytest.fixture
def expert() -> Diffusion:
    return p1.make(SMALL)


@pytest.fixture
def rows() -> p1.Rows:
    return p1.random_rows(SMALL)


def sample(expert: Diffusion, rows: p1.Rows) -> Tensor:
    return expert.sample(rows.cognition, rows.perception, rows.noise)


@pytest.mark.parametrize(
    "settings", [{}, {"guidance": 0.0}, {"guidance": 3.0}, {"steps": 20}, {"steps": 50, "guidance": 1.0}]
)
def test_sample_is_the_plain_one(rows, settings):
    p1.require_equal_actions(p1.make(SMALL, **settings), rows)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_loss_and_gradients_are_the_plain_ones(rows, n):
    p1.require_equal_loss(p1.make(SMALL, draws=n), rows)


def test_a_released_size_is_the_plain_one():
    shape = replace(SMALL, rows=1, size="S")
    p1.require_equal_actions(p1.make(shape), p1.random_rows(shape))


class Neighbours(Block):
    """Mutant: every block looks at the keys and values of the row before."""

    def _look(self, x_BGSD: Tensor, kv_BPZ: Tensor) -> Tensor:
        return super()._look(x_BGSD, kv_BPZ.roll(1, 0))


class Mixed(Block):
    """Mutant: the halves (or draws) of a row see one another, as one sequence."""

    def _own(self, x_BGSD: Tensor) -> Tensor:
        return super()._own(x_BGSD.flatten(1, 2).unsqueeze(1)).view_as(x_BGSD)


class Swapped(Block):
    """Mutant: keys for values."""

    def _look(self, x_BGSD: Tensor, kv_BPZ: Tensor) -> Tensor:
        return super()._look(x_BGSD, kv_BPZ.roll(kv_BPZ.shape[-1] // 2, -1))


class Unmoved(Diffusion):
    """Mutant: the noise of the first draw for all of them."""

    def _drawn(self, key_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        step_BG, dropped_BG, eps_BGNA = super()._drawn(key_B)
        return step_BG, dropped_BG, eps_BGNA[:, :1].expand_as(eps_BGNA)


class WrongHalf(Diffusion):
    """Mutant: guidance away from cognition."""

    def _guided(self, eps_BGNA: Tensor) -> Tensor:
        return super()._guided(eps_BGNA.flip(1))


@pytest.mark.parametrize("mutant", [Neighbours, Mixed, Swapped])
def test_another_block_is_noticed(expert, rows, mutant):
    for block in expert.blocks:
        block.__class__ = mutant
    with pytest.raises(AssertionError, match="actions: differs"):
        p1.require_equal_actions(expert, rows)
    with pytest.raises(AssertionError, match="loss: differs"):
        p1.require_equal_loss(expert, rows)


def test_another_expert_is_noticed(expert, rows):
    expert.__class__ = WrongHalf
    with pytest.raises(AssertionError, match="actions: differs"):
        p1.require_equal_actions(expert, rows)
    expert.__class__ = Unmoved
    with pytest.raises(AssertionError, match="loss: differs"):
        p1.require_equal_loss(expert, rows)


def test_dense_is_linear():
    dense, linear = Dense(5, 3), nn.Linear(5, 3)
    linear.weight.data, linear.bias.data = dense.weight.data.mT, torch.randn(3)
    dense.bias.data = linear.bias.data
    for lead in ((2,), (4, 2, 3)):
        x = torch.randn(*lead, 5)
        torch.testing.assert_close(dense(x), linear(x))


def test_perception_is_projected_once_a_call(monkeypatch, expert, rows):
    calls = []
    keys = expert.keys
    monkeypatch.setattr(expert, "keys", lambda per_BPV: calls.append(len(per_BPV)) or keys(per_BPV))
    sample(expert, rows)
    p1.our_loss(expert, rows)
    assert calls == [3, 3]


def test_keys_have_a_row_for_each_row(expert, rows):
    alone, kv = expert.keys(rows.perception[1:2]), expert.keys(rows.perception)
    assert [kv_BPZ.shape for kv_BPZ in kv] == [(3, 6, 256)] * 3
    torch.testing.assert_close(alone, [kv_BPZ[1:2] for kv_BPZ in kv])


def test_guidance_one_is_cognition_alone(monkeypatch, rows):
    expert, copies = p1.make(SMALL, guidance=1.0), []
    predict = expert.predict
    monkeypatch.setattr(expert, "predict", lambda c, *rest: copies.append(c.shape[1]) or predict(c, *rest))
    found = sample(expert, rows)
    assert copies == [1] * 10
    expert.null.data += 1
    assert torch.equal(sample(expert, rows), found)
    nothing = p1.make(SMALL, guidance=0.0)
    at_once = sample(nothing, replace(rows, cognition=torch.zeros_like(rows.cognition)))
    torch.testing.assert_close(sample(nothing, rows), at_once)


def test_rows_are_independent(expert, rows):
    together = sample(expert, rows)
    for b in range(3):
        alone = p1.Rows(**{name: value[b : b + 1] for name, value in vars(rows).items()})
        torch.testing.assert_close(sample(expert, alone), together[b : b + 1], atol=1e-5, rtol=1e-5)
    each = [p1.our_loss(expert, p1.Rows(**{k: v[b : b + 1] for k, v in vars(rows).items()})) for b in range(3)]
    torch.testing.assert_close(torch.stack(each).mean(), p1.our_loss(expert, rows))


def test_loss_is_a_function_of_the_keys(expert, rows):
    first = p1.our_loss(expert, rows)
    torch.manual_seed(5)
    assert torch.equal(p1.our_loss(expert, rows), first)
    assert not torch.allclose(p1.our_loss(expert, replace(rows, key=rows.key + 1)), first, rtol=1e-3)


def test_draws_of_a_row_differ_and_a_tenth_goes_without_cognition(expert):
    step_BG, dropped_BG, eps_BGNA = expert._drawn(torch.arange(5000))
    assert all(len(row.unique()) == 4 for row in eps_BGNA[:20, :, 0, 0])
    assert (step_BG[:, 0] == step_BG[:, 1]).float().mean() < 0.03
    assert step_BG.unique().tolist() == list(range(100))
    assert abs(dropped_BG.float().mean() - 0.1) < 0.01
    assert abs(dropped_BG.float().std(1).mean() - 0.17) < 0.02  # each draw by itself: rows are not dropped whole


def test_padding_does_not_count(expert, rows):
    other = torch.where(rows.ok.unsqueeze(-1), rows.target, torch.tensor(7.0))
    assert torch.equal(p1.our_loss(expert, replace(rows, target=other)), p1.our_loss(expert, rows))
    none = replace(rows, ok=torch.zeros_like(rows.ok))
    assert p1.our_loss(expert, none) == 0
    last = rows.ok.clone()
    last[0] = False
    rest = p1.Rows(**{name: value[1:] for name, value in vars(rows).items()})
    torch.testing.assert_close(p1.our_loss(expert, replace(rows, ok=last)), p1.our_loss(expert, rest))


def test_weights_scale_rows(expert, rows):
    given = (rows.cognition, rows.perception, rows.target, rows.ok, rows.key)
    weight_B = torch.tensor([2.0, 0.0, 0.5])
    torch.testing.assert_close(expert.loss(*given, weight_B), p1.plain_loss(expert, rows, weight_B))
    torch.testing.assert_close(expert.loss(*given, torch.ones(3)), expert.loss(*given))


def test_starts_without_perception_or_noise_but_learns_both(rows):
    expert = Diffusion(*SMALL.widths, 7, 4, "xs")
    optimizer = torch.optim.SGD(expert.parameters(), lr=0.1)
    learning = []
    for _ in range(3):
        optimizer.zero_grad()
        p1.our_loss(expert, rows).backward()
        block = expert.blocks[0]
        learning.append([bool(p.weight.grad.any()) for p in (expert.noise, block.look_out, block.look_kv)])
        optimizer.step()
    assert learning == [[True, False, False], [True, True, False], [True, True, True]]


def test_no_noise_is_predicted_at_first(rows):
    expert = Diffusion(*SMALL.widths, 7, 4, "xs")
    eps = expert.predict(torch.randn(3, 1, 128), rows.noise.unsqueeze(1), expert.keys(rows.perception))
    assert not eps.any()


@pytest.mark.parametrize("steps", [1, 5, 10, 33, 100])
def test_a_perfect_prediction_recovers_the_actions(monkeypatch, rows, steps):
    expert = p1.make(SMALL, steps=steps)
    at = iter(sampled_steps(steps))

    def perfect(condition_BGD: Tensor, noisy_B1NA: Tensor, kv: list[Tensor]) -> Tensor:
        share = kept()[next(at)].item()
        eps_B1NA = (noisy_B1NA - share**0.5 * rows.target.unsqueeze(1)) / (1 - share) ** 0.5
        return eps_B1NA.expand(-1, condition_BGD.shape[1], -1, -1)

    monkeypatch.setattr(expert, "predict", perfect)
    torch.testing.assert_close(sample(expert, rows), rows.target, atol=1e-4, rtol=1e-4)


def test_steps_are_the_papers_and_go_from_noise_to_none():
    assert sampled_steps(10) == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert sampled_steps(100) == list(range(99, -1, -1))
    assert [sampled_steps(n) for n in (1, 2, 3)] == [[90], [90, 40], [90, 56, 23]]
    for n in range(1, 101):
        steps = sampled_steps(n)
        assert len(set(steps)) == n
        assert 90 <= steps[0] <= 99
        assert steps == sorted(steps, reverse=True)
        assert steps[-1] >= 0


def test_schedule_is_kept_in_no_checkpoint_and_follows_the_module(expert):
    assert {"mixture", "waves", "update", "sampled"} <= dict(expert.named_buffers()).keys()
    assert not {"mixture", "waves", "update", "sampled"} & expert.state_dict().keys()
    torch.testing.assert_close(kept(), torch.tensor(p1.signal_shares(), dtype=torch.float64))
    torch.testing.assert_close(expert.mixture.square().sum(1), torch.ones(100))
    assert "size=xs, draws=4, steps=10, guidance=1.5" in repr(expert)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": "XL"}, "size: expected one of xs, S, B, L, found 'XL'"),
        ({"chunk": 0}, "chunk: expected at least 1 action, found 0"),
        ({"draws": 0}, "draws: expected at least 1 for each row, found 0"),
        ({"steps": 0}, "steps: expected 1 to 100, found 0"),
        ({"steps": 101}, "steps: expected 1 to 100, found 101"),
        ({"guidance": -0.1}, "guidance: expected 0 or more, found -0.1"),
        ({"guidance": float("nan")}, "guidance: expected 0 or more, found nan"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Diffusion(4, 4, **{"action_dim": 7, "chunk": 4, "size": "xs"} | wrong)


def told(side_B: Tensor) -> tuple[Tensor, Tensor]:
    """Perception that tells the second action dimension's sign, and chunks of two: nothing tells the first's sign."""
    shown_B = side_B.roll(1)
    return F.pad(shown_B[:, None, None], (0, 1)), torch.stack([side_B, shown_B], 1)[:, None].expand(-1, 2, -1)


def sides(key_B: Tensor) -> Tensor:
    return 2.0 * draws.integers(key_B, 2) - 1


def learnt(updates: int, rows: int) -> Diffusion:
    """A small expert after some updates on what `told` makes of random sides."""
    torch.manual_seed(0)
    expert = Diffusion(2, 2, 2, 2, "xs")
    optimizer = torch.optim.AdamW(expert.parameters(), lr=2e-3, weight_decay=0.0)
    cog_BC, ok_BN = torch.zeros(rows, 2), torch.ones(rows, 2, dtype=torch.bool)
    for i in range(updates):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, 2 * (1 - i / updates))
        key_B = draws.mix(torch.arange(rows), i)
        loss = expert.loss(cog_BC, *told(sides(key_B)), ok_BN, draws.mix(key_B, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return expert


def test_samples_fall_on_modes_not_between_them_and_perception_is_heeded():
    expert, b = learnt(updates=200, rows=24), 400
    per_BPV, _ = told(sides(torch.arange(b)))
    found = expert.sample(torch.zeros(b, 2), per_BPV, draws.normal(draws.mix(torch.arange(b), 1), 2, 2))
    on_a_mode_B = (found - found.sign()).abs().amax((1, 2)) < 0.5
    assert on_a_mode_B.float().mean() > 0.75  # none of them, were the mean what is learnt
    assert 0.3 < (found[:, 0, 0] > 0).float().mean() < 0.7
    assert (found[:, 0, 0].sign() == found[:, 1, 0].sign()).float().mean() > 0.95  # both actions of one mind
    assert (found[:, :, 1].sign() == per_BPV[:, :, 0]).float().mean() > 0.95
