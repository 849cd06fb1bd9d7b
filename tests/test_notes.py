"""Notes: a memory that begins as the backbone was pretrained to take them does what the pretraining did."""

from dataclasses import replace

import fakes
import pytest
import torch

from engram.backbones import notes, tiny
from engram.backbones.notes import Notes
from engram.data.normalise import Normaliser
from engram.memory.recurrent import gate_bias
from engram.policies.build import build
from engram.policies.checkpoint import load, save_pretrained
from engram.policies.design import Design

NOTED = Design(m=3, notes=True)
ACTION = Normaliser(torch.zeros(7), torch.ones(7))


def noted_policy():
    """A policy on a random backbone with random notes, and these."""
    torch.manual_seed(0)
    backbone = tiny.Tiny(2, 7, **tiny.SIZES["s"])
    backbone.notes = known = Notes(backbone.width)
    with torch.no_grad():
        known.slot.normal_()
        known.mean.normal_()
        known.spread.uniform_(0.5, 2.0)
    return build(NOTED, fakes.SPEC, ACTION, backbone).eval(), known


def test_statistics_follow_what_is_written():
    known, h_BMD = Notes(4), 3 * torch.randn(64, 5, 4) + 2
    known.follow(h_BMD, 1.0)
    torch.testing.assert_close(known.standardised(h_BMD).mean((0, 1)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(known.standardised(h_BMD).std((0, 1)), torch.ones(4))
    for _ in range(500):
        known.follow(torch.full((8, 5, 4), 7.0), 0.02)
    torch.testing.assert_close(known.mean, torch.full((4,), 7.0), atol=1e-2, rtol=0)
    assert bool((known.spread >= notes.SPREAD_FLOOR * 0.99).all()), "what never moves is not blown up to noise"


def test_a_memory_is_written_and_read_as_notes_were():
    """The plain recurrence of recipes/pretrain_notes.py, tick by tick."""
    policy, known = noted_policy()
    backbone, obs = policy.trunk.backbone, fakes.window(rows=2, ticks=1).obs.at(0)
    carry, memory_BMD = policy.init(2), torch.zeros(2, 3, backbone.width)
    gate_D = torch.sigmoid(gate_bias(backbone.width, notes.SLOWEST))
    with torch.no_grad():
        for tick in range(3):
            carry = policy.observe(carry, obs, torch.full((2,), tick == 0))
            h_BMD, _ = backbone.ask(policy.place + notes.SCALE * memory_BMD, *policy.trunk.see(obs).keys())
            memory_BMD = torch.lerp(memory_BMD, known.standardised(h_BMD), gate_D)
    torch.testing.assert_close(carry["memory/tokens"], memory_BMD, atol=1e-5, rtol=1e-5)
    assert (policy.place - known.slot).std() < 0.05, "memory tokens begin as notes"


def test_notes_are_the_memorys_and_reach_a_checkpoint(tmp_path):
    policy, _ = noted_policy()
    assert not any("notes" in name for name in policy.state_dict())
    save_pretrained(policy, NOTED, tmp_path / "noted")
    again, design = load(tmp_path / "noted")
    assert design == NOTED
    for name, value in policy.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_backbone_without_notes_is_refused():
    backbone = tiny.Tiny(2, 7, **tiny.SIZES["s"])
    with pytest.raises(ValueError, match=r"notes: expected weights that know them .* use --design.no-notes"):
        build(NOTED, fakes.SPEC, ACTION, backbone)


def test_notes_are_of_a_memory_with_gates():
    _, known = noted_policy()
    for design, said in ((Design(m=0), "found none"), (Design(m=2, rule="plain"), "expected 'gated'")):
        with pytest.raises(ValueError, match=said):
            build(design, fakes.SPEC, ACTION, tiny.Tiny(2, 7, **tiny.SIZES["s"])).begin_with(known)


def test_a_design_that_never_took_notes_begins_as_before():
    torch.manual_seed(0)
    backbone = tiny.Tiny(2, 7, **tiny.SIZES["s"])
    backbone.notes = Notes(backbone.width)
    policy = build(replace(NOTED, notes=False), fakes.SPEC, ACTION, backbone)
    assert policy.memory is not None
    assert float(policy.memory.initial.detach().std()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("weights", "known"), [(tiny.MIKASA, True), (tiny.PACKAGED, False)])
def test_the_weights_for_mikasa_know_notes_and_the_tables_do_not(weights, known):
    assert (tiny.pretrained(weights).notes is not None) == known


@pytest.mark.parametrize(
    "other",
    [{"m": 0}, {"carried": False}, {"rule": "plain"}, {"standardise": False}, {"read_scale": 1.0}, {"mask": "full"}],
)
def test_notes_are_refused_for_another_memory_than_they_were_taken_with(other):
    with pytest.raises(ValueError, match="notes: expected False unless memory is recurrent, carried, gated"):
        replace(NOTED, **other)
