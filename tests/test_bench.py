"""The score card: every row's equality on tiny shapes, references that differ are refused, the JSON line. No timing."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from benchmarks import inputs, p1, p2, p3, p4, p7, p9, p12
from engram import bench
from engram import carry as carries

TINY = p4.Shape(rows=3, ticks=4, cameras=1, m=2, chunk=3, size="s")
FIELDS = {"row", "ratio", "min", "max", "rounds", "device", "shapes", "ci95", "better", "bar", "met", "what"}


@pytest.fixture
def at_once(monkeypatch):
    """Rows measure two rounds of a known ratio instead of the clock."""

    def alternate(a, b, seconds, rounds=7):
        a(), b()
        return bench.summary([(3.0, 2.0), (5.0, 2.0)])

    for row in (p1, p2, p3, p4, p7, p9, p12):
        monkeypatch.setattr(row, "alternate", alternate)


@pytest.mark.parametrize("again", [False, True])
def test_p4_plain_loop_has_our_loss_and_gradients(again):
    policy, window = inputs.policy(p4.design(TINY), TINY.cameras), p4.window_of(TINY)
    p4.require_equal(policy, window, lambda *given: p4.plain(*given, again=again))


def without_guard(text_ok_BS, context, memory, actions):
    ok_BSS = p4_mask(text_ok_BS, context, memory, actions)
    ok_BSS[:, :, context + memory :] = True
    return ok_BSS


def padding_is_seen(text_ok_BS, context, memory, actions):
    return p4_mask(torch.ones_like(text_ok_BS), context, memory, actions)


p4_mask = p4.dense_mask


@pytest.mark.parametrize("mutant", [without_guard, padding_is_seen])
def test_p4_refuses_another_mask(monkeypatch, mutant):
    monkeypatch.setattr(p4, "dense_mask", mutant)
    policy, window = inputs.policy(p4.design(TINY), TINY.cameras), p4.window_of(TINY)
    with pytest.raises(AssertionError, match="differs from the reference"):
        p4.require_equal(policy, window, p4.plain)


def test_p4_refuses_a_loop_that_forgets_to_reset_or_to_carry_gradients(monkeypatch):
    policy, window = inputs.policy(p4.design(TINY), TINY.cameras), p4.window_of(TINY)
    monkeypatch.setattr(p4, "carries", SimpleNamespace(where=lambda mask, yes, no: no, select=carries.select))
    with pytest.raises(AssertionError, match="differs from the reference"):
        p4.require_equal(policy, window, p4.plain)
    monkeypatch.undo()
    truncated = inputs.policy(p4.design(TINY), TINY.cameras)
    truncated.tbptt = 2
    with pytest.raises(AssertionError, match="differs from the reference"):
        p4.require_equal(truncated, window, p4.plain)


def test_p4_ours_never_multiplies_more_than_the_plain_loop():
    assert 1.0 < p4.flop_ratio(TINY) < 1.5


def test_p7_cache_is_one_masked_pass_and_a_lost_frame_is_noticed():
    policy, frames = inputs.policy(p7.design("full"), 1), inputs.ticks(1, 1, 3)
    p7.require_equal_cache(policy, frames)

    class Loses(p7.KeepsAll):
        def step(self, obs, t):
            return super().step(obs, min(t, 1))

    with pytest.raises(AssertionError, match="tick 2"):
        p7.require_equal_cache(policy, frames, Loses)


def test_p7_carries_must_not_grow():
    carry = {"memory/tokens": torch.zeros(1, 2, 4)}
    assert p7.require_equal_bytes(carry, dict(carry)) == 32
    with pytest.raises(AssertionError, match="grown"):
        p7.require_equal_bytes(carry, {"memory/tokens": torch.zeros(1, 3, 4)})


@pytest.mark.parametrize("row", ["P4", "P7", "P12"])
def test_a_baseline_that_a_row_does_not_have_is_refused(monkeypatch, row):
    for module in (p1, p2, p3, p4, p7, p9, p12):
        monkeypatch.setattr(module, "measure", None)  # refused before anything is measured
    expected = "kv-all or nothing" if row == "P7" else f"nothing for {row}"
    with pytest.raises(ValueError, match=f"--against: expected {expected}, found 'concat'; see "):
        bench.run(row, against="concat")


@pytest.mark.parametrize("which", [0, 1])
def test_p12_step_is_one_dense_pass_and_another_is_refused(which):
    policy, obs = p12.pair(1)[which], inputs.ticks(1, 2, 1).at(0)
    p12.require_equal(policy, obs, p12.dense)
    for part in ("actions", *policy.init(2)):
        with pytest.raises(AssertionError, match=f"{part}: differs"):
            p12.require_equal(policy, obs, partial(one_percent_off, part))


def one_percent_off(part, *given):
    actions, carry = p12.dense(*given)
    return (1.01 * actions, carry) if part == "actions" else (actions, carry | {part: 1.01 * carry[part]})


def test_p12_memory_is_the_only_difference():
    remembers, forgets = p12.pair(1)
    assert remembers.trunk.backbone is forgets.trunk.backbone
    assert p12.OTHERS >= 128


def test_p9_refuses_episodes_that_depend_on_their_neighbours(monkeypatch):
    monkeypatch.setattr(p9, "EPISODES", 3)
    policy = inputs.policy(p9.Design(m=2), p9.CAMERAS)
    with p9.VectorEnv(p9.Point, 3, 0) as many, p9.VectorEnv(p9.Point, 1, 0) as one:
        alone = p9.episodes(policy, one, 1)
        p9.require_same(p9.episodes(policy, many, 3), alone)
        step = p9.Point.step
        monkeypatch.setattr(p9.Point, "step", lambda self, action: step(self, action + 0.01))
        with pytest.raises(AssertionError, match="seed 0"):
            p9.require_same(p9.episodes(policy, many, 3), alone)


@pytest.fixture
def small(monkeypatch):
    """Every row on shapes of a few milliseconds."""
    tiny = {name: p1.Shape(shape.rows, shape.chunk, 6, "xs", (10, 5)) for name, shape in p1.SHAPES.items()}
    monkeypatch.setattr(p1, "SHAPES", tiny)
    for row in (p2, p3):
        monkeypatch.setattr(row, "STREAMS", {"perceptual": (3, 16), "cognitive": (1, 24)})
    monkeypatch.setattr(p4, "SHAPES", dict.fromkeys(p4.SHAPES, TINY))
    monkeypatch.setattr(p7, "LATE", 20)
    monkeypatch.setattr(p7, "HISTORY", {"tiny": (1, 20)})
    monkeypatch.setattr(p9, "EPISODES", 3)
    monkeypatch.setattr(p9, "LANES", 2)
    monkeypatch.setattr(p12, "CAMERAS", 1)


def test_without_a_row_the_score_card_is_explained(monkeypatch, capsys):
    for module in (p1, p2, p3, p4, p7, p9, p12):
        monkeypatch.setattr(module, "measure", None)  # nothing is timed
    bench.show()
    said = capsys.readouterr().out
    assert all(f"{row} " in said for row in bench.rows())
    assert ">= 1.5" in said


def test_score_card_has_a_line_for_every_row(small, at_once, capsys):
    assert bench.run_all(as_json=True) == 1  # a ratio of 2 misses all bars but P4's
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["row"], line["met"]) for line in lines] == [
        ("P1", False), ("P2", False), ("P3", False), ("P4", True), ("P7", False), ("P9", False), ("P12", False),
    ]  # fmt: skip


def test_p3_refuses_a_bank_that_reads_its_own_frame(monkeypatch):
    bank, x = p3.paper_bank(3, 16), torch.randn(2, p3.FRAMES, 3, 16)
    p3.require_equal(bank, x)
    monkeypatch.setattr(p3, "ours", lambda bank, x: p3.plain(bank, x.roll(1, 1)))
    with pytest.raises(AssertionError, match="read: differs"):
        p3.require_equal(bank, x)


@pytest.mark.parametrize(
    ("row", "against"),
    [
        ("P1", None),
        ("P2", None),
        ("P3", None),
        ("P4", None),
        ("p7", None),
        ("P7", "kv-all"),
        ("P9", None),
        ("P12", None),
    ],
)
def test_last_line_is_json(small, at_once, capsys, row, against):
    bench.run(row, as_json=True, against=against)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert set(found) >= FIELDS
    assert (found["row"], found["ratio"], found["min"], found["max"], found["rounds"]) == (
        row.upper(),
        2.0,
        1.5,
        2.5,
        2,
    )


def test_unknown_row_names_those_there_are():
    with pytest.raises(ValueError, match=r"expected one of P1, P2, P3, P4, P7, P9, P12, found 'P99'"):
        bench.run("P99")


def test_interval_of_the_median():
    found = bench.summary([(float(i), 1.0) for i in range(1, 10)])
    assert (found.median, found.min, found.max, found.rounds) == (5.0, 1.0, 9.0, 9)
    assert found.ci95 == (2.0, 8.0)  # order statistics 2 and 8 of 9: coverage 96.1 %
    assert bench.summary([(1.0, 1.0)] * 2).ci95 == (1.0, 1.0)


def test_alternate_counts_rounds_and_runs_both():
    calls = []
    found = bench.alternate(lambda: calls.append("a"), lambda: calls.append("b"), seconds=0.0)
    assert found.rounds == 7
    assert (calls.count("a"), calls.count("b")) == (9, 9)
    assert "".join(calls[4:8]) == "abba"


def test_bars():
    found = bench.summary([(1.0, 1.0), (1.1, 1.0), (1.2, 1.0)])
    assert bench.Bar("more", 1.1).met(found)
    assert not bench.Bar("more", 1.2).met(found)
    assert bench.Bar("less", 1.1).met(found)
    assert not bench.Bar("less", 1.02).met(found)
    assert bench.Bar("less", 1.02, interval=True).met(found)
    assert not bench.Bar("less", 0.99, interval=True).met(found)


def test_equality_is_relative():
    bench.assert_equal("x", torch.tensor([1000.001]), torch.tensor([1000.0]))
    with pytest.raises(AssertionError, match="x: differs from the reference by 1.0e-03"):
        bench.assert_equal("x", torch.tensor([1.001]), torch.tensor([1.0]))
