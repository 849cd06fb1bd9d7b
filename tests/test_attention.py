"""Where a policy looks: the weights reproduce the policy's own attention, and the film shows them."""

from dataclasses import replace

import av
import fakes
import game
import numpy as np
import pytest
import torch
from torch import Tensor

from engram.policies.attention import Looks, look, shares
from engram.policies.build import Design
from engram.policies.through import Through
from engram.rollout import overlay
from engram.rollout.evaluate import EpisodeError
from engram.rollout.overlay import film_attention
from engram.types import Observation

MASKS = ("full", "insulated")
SMALL = replace(fakes.SPEC, height=game.SIDE, width=game.SIDE)
every_mask = pytest.mark.parametrize("mask", MASKS)
every_m = pytest.mark.parametrize("m", [0, 2])


def observation() -> Observation:
    return fakes.window().obs.at(0)  # three rows whose texts differ in length: some keys are padding


def fed(policy: Through, obs: Observation) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """What every slot layer projected and was given, in the policy's own passes; the carry between them."""
    projected, attended, hooks = [], [], []
    for layer in policy.trunk.backbone.slots.layers:
        hooks += [
            layer.qkv.register_forward_hook(lambda _, __, out: projected.append(out)),
            layer.out.register_forward_pre_hook(lambda _, args: attended.append(args[0])),
        ]
    with torch.no_grad():
        now = policy.observe(policy.init(3), obs, torch.ones(3, dtype=torch.bool))
        policy.act(now)
    for hook in hooks:
        hook.remove()
    return projected, attended, now


def looked(policy: Through, obs: Observation) -> Looks:
    return look(policy, policy.init(3), obs, torch.ones(3, dtype=torch.bool))


@every_mask
@every_m
def test_the_weights_give_what_attention_gave(mask, m):
    policy = fakes.policy(Design(m=m, mask=mask, trained="all"))
    obs = observation()
    layers = list(policy.trunk.backbone.slots.layers)
    projected, attended, now = fed(policy, obs)
    looks, images = looked(policy, obs), 2 * 16
    for index, layer in enumerate(layers):
        for kind, at in ((looks.memory, index), (looks.action, index - len(layers))):
            if kind is None:
                continue
            q, k, v = projected[at].chunk(3, -1)
            kv, ok = now["now/kv"][:, index], now["now/ok"]
            if kind is looks.action:
                kv = torch.cat([kv, torch.stack([k, v], 1)], 2)
                ok = torch.cat([ok, ok.new_ones(k.shape[:2])], 1)
            weights = shares(layer, q, kv[:, 0], ok)
            value = kv[:, 1].unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            again = (weights @ value).transpose(1, 2).flatten(2)
            torch.testing.assert_close(again, attended[at], rtol=0, atol=1e-5)
            torch.testing.assert_close(again, layer.attend(q, kv, ok[:, None]), rtol=0, atol=1e-5)
            assert torch.equal(kind[:, index].flatten(1), weights.mean((1, 2))[:, :images])


@every_mask
@every_m
def test_looks_are_shares_of_one(mask, m):
    looks = looked(fakes.policy(Design(m=m, mask=mask)), observation())
    assert (looks.memory is None) == (m == 0)
    for kind in looks:
        if kind is not None:
            assert kind.shape == (3, 2, 2, 4, 4)
            assert (kind > 0).all()
            assert (kind.sum((2, 3, 4)) < 1).all()


@every_mask
def test_looking_changes_nothing_and_leaves_no_ear_behind(mask):
    policy = fakes.policy(Design(m=2, mask=mask))
    carry = policy.init(3)
    before = {key: value.clone() for key, value in carry.items()}
    look(policy, carry, observation(), torch.ones(3, dtype=torch.bool))
    assert all(torch.equal(carry[key], before[key]) for key in before)
    assert not any(layer.qkv._forward_hooks for layer in policy.trunk.backbone.slots.layers)


@every_mask
def test_rows_look_alone(mask):
    policy, obs = fakes.policy(Design(m=2, mask=mask)), observation()
    every = looked(policy, obs)
    for row in range(3):
        alone = look(policy, policy.init(1), obs.rows(torch.tensor([row])), torch.ones(1, dtype=torch.bool))
        for many, one in zip(every, alone, strict=True):
            torch.testing.assert_close(many[row : row + 1], one, rtol=0, atol=1e-5)


def test_where_the_image_attracts_the_heat_is_there():
    """Images lie row by row, camera by camera: a key made to match every query lights up its own cell."""
    layer = fakes.policy(Design(m=2)).trunk.backbone.slots.layers[0]
    q = torch.ones(1, 1, 32)
    key = torch.zeros(1, 40, 32)
    key[:, 16 + 4 * 2 + 1] = 10.0  # camera 1, third row, second column
    weights = shares(layer, q, key, torch.ones(1, 40, dtype=torch.bool)).mean((1, 2))
    assert weights[:, :32].unflatten(1, (2, 4, 4))[0, 1, 2, 1] > 0.99


@pytest.mark.parametrize(("m", "columns"), [(0, 1), (2, 2)])
def test_a_film_has_a_frame_for_every_observation(tmp_path, monkeypatch, m, columns):
    monkeypatch.setattr(overlay, "SIDE", 128)
    policy = fakes.policy(Design(m=m), spec=SMALL)
    record = film_attention(policy, game.RecallGame, 3, tmp_path / "videos" / "attention.mp4")
    with av.open(str(tmp_path / "videos" / "attention.mp4")) as file:
        stream = file.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert len(frames) == record["ticks"]
    assert frames[0].shape == (overlay.BAR + overlay.TITLE + 2 * 128, columns * 128, 3)


def test_the_heat_of_a_film_is_where_the_look_is():
    action = torch.zeros(1, 2, 2, 4, 4)
    action[..., 1, 0, 3] = 0.5  # the wrist camera, top right
    black = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    (frame,) = overlay.draw([overlay.Glance(black, Looks(None, action))], ["cue"])
    panel = frame[overlay.BAR + overlay.TITLE :].astype(int).sum(-1)
    row, column = np.unravel_index(panel.argmax(), panel.shape)
    assert overlay.SIDE <= row < overlay.SIDE * 5 // 4
    assert column >= overlay.SIDE * 3 // 4
    assert panel[: overlay.SIDE].max() == 0


def test_the_film_of_a_failing_environment_is_not_written(tmp_path):
    policy = fakes.policy(Design(m=2), spec=SMALL)
    with pytest.raises(EpisodeError, match="exploded"):
        film_attention(policy, lambda: game.RecallGame(fails_on=(3,)), 3, tmp_path / "film.mp4")
    assert not (tmp_path / "film.mp4").exists()


def test_only_memory_tokens_can_be_looked_into(tmp_path):
    policy = fakes.policy(Design(memory="first-frame"))
    with pytest.raises(ValueError, match="Before"):
        film_attention(policy, game.RecallGame, 3, tmp_path / "film.mp4")
