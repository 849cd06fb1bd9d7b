"""Video world models: the mathematics, what is computed and what is not, what is frozen, disk, training, imagination.

Legend: as in engram/world/model.py and engram/world/imagine.py.
"""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_data import record
from torch import Tensor, nn

pytest.importorskip("diffusers", reason='needs pip install "engram-vla[world]"')

from safetensors.torch import load_file, save_file

from engram import cli, draws, train_world
from engram.data.futures import futures
from engram.data.lerobot import Dataset
from engram.settings import WorldSettings
from engram.train_world import Clips, new_tiny, score
from engram.types import Spec
from engram.world import checkpoint, published
from engram.world.begin import published as begin_published
from engram.world.begin import tiny
from engram.world.imagine import OPEN, Imagination, pooled
from engram.world.latents import Patches, Vae
from engram.world.model import STEPS, Outlook, World, preconditioning, schedule
from engram.world.published import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from engram.world.text import Clip, Words, clip

OUTLOOK = Outlook(height=32, width=32, frames=4, stride=1)
TEXT = ("push the cube", "wait")
KEY = torch.tensor([3, 4])


def pictures(rows: int = 12, side: int = 32, seed: int = 0) -> Tensor:
    """Smooth random pictures, uint8 (N, side, side, 3)."""
    rough = torch.rand(rows, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(rough, (side, side), mode="bilinear")
    return (255 * smooth).to(torch.uint8).movedim(1, -1)


@pytest.fixture(scope="module")
def shared() -> World:
    """Not to be changed: `world` is."""
    return tiny(OUTLOOK, pictures(), factor=4, channels=6)


@pytest.fixture
def world(shared) -> World:
    made = tiny(OUTLOOK, pictures(), factor=4, channels=6)
    made.load_state_dict(shared.state_dict())
    return made


@pytest.fixture
def now(shared) -> Tensor:
    return shared.see(pictures(2, seed=1))


@pytest.fixture
def latents(shared) -> Tensor:
    return shared.codec.encode(pictures(8, seed=2).unflatten(0, (2, 4)))


# The mathematics


def test_preconditioning_keeps_unit_scale_and_the_weighted_loss_is_that_of_the_network():
    sigma = torch.tensor([0.002, 0.1, 1.0, 30.0, 700.0], dtype=torch.float64)
    skip, out, into, name = preconditioning(sigma)
    torch.testing.assert_close(into**2 * (1 + sigma**2), torch.ones_like(sigma))
    torch.testing.assert_close(skip, 1 / (sigma**2 + 1))
    torch.testing.assert_close(out**2 * (sigma**2 + 1) / sigma**2, torch.ones_like(sigma))
    torch.testing.assert_close((1 - skip) ** 2 + (skip * sigma) ** 2, out**2)  # what the network has to make is of 1
    torch.testing.assert_close(name, sigma.log() / 4)
    assert (out < 0).all()


def test_schedule_is_karras_and_ends_clean():
    sigma = schedule(700.0)
    assert len(sigma) == STEPS + 1
    assert sigma[0] == 700
    torch.testing.assert_close(sigma[-2], torch.tensor(0.002))
    assert sigma[-1] == 0
    assert (sigma.diff() < 0).all()
    torch.testing.assert_close((sigma[:-1] ** (1 / 7)).diff().std(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_a_perfect_denoiser_recovers_the_data(monkeypatch, world, now, latents):
    monkeypatch.setattr(world, "denoise", lambda *_: latents)
    assert torch.equal(world.sample(now, TEXT, KEY), latents)
    assert torch.equal(world.expect(now, TEXT, KEY), latents)
    assert world.loss(latents, now, TEXT, KEY) == 0


def test_a_perfect_network_has_no_loss(monkeypatch, world, now, latents):
    def perfect(noisy_BKCHW: Tensor, sigma_B: Tensor, *_: Tensor) -> Tensor:
        scales = preconditioning(sigma_B[:, None, None, None, None])
        return (latents - scales.skip * noisy_BKCHW) / scales.out

    monkeypatch.setattr(world, "_network", perfect)
    assert world.loss(latents, now, TEXT, KEY) < 1e-6


def test_noise_and_dropped_text_are_as_asked_for(monkeypatch, world):
    told, sigmas = [], []

    def note(noisy_BKCHW: Tensor, sigma_B: Tensor, now_BCHW: Tensor, told_BSD: Tensor) -> Tensor:
        told.append(told_BSD)
        sigmas.append(sigma_B)
        return preconditioning(sigma_B).out[:, None, None, None, None].expand_as(noisy_BKCHW)

    monkeypatch.setattr(world, "denoise", note)
    rows = 3000
    monkeypatch.setattr(world, "shape", (1, 6, 1, 1))
    loss = world.loss(torch.zeros(rows, 1, 6, 1, 1), torch.zeros(rows, 6, 1, 1), rows * ("wait",), torch.arange(rows))
    assert abs((told[0] == 0).all((1, 2)).float().mean() - 0.05) < 0.01
    assert abs(sigmas[0].log().mean() - 0.7) < 0.1
    assert abs(sigmas[0].log().std() - 1.6) < 0.1
    torch.testing.assert_close(loss, torch.tensor(1.0))  # such errors weigh the same at all noise


# Functions of keys


def test_loss_and_features_are_functions_of_keys(shared, now, latents):
    loss, maps = shared.loss(latents, now, TEXT, KEY), shared.features(now, TEXT, KEY)
    torch.manual_seed(7)
    assert torch.equal(shared.loss(latents, now, TEXT, KEY), loss)
    assert all(torch.equal(a, b) for a, b in zip(shared.features(now, TEXT, KEY), maps, strict=True))
    assert not torch.allclose(shared.loss(latents, now, TEXT, KEY + 1), loss, rtol=1e-3)
    assert not torch.allclose(shared.features(now, TEXT, KEY + 1)[0], maps[0], atol=1e-3)


def test_rows_are_independent_of_the_batch(shared, now, latents):
    whole = shared.features(now, TEXT, KEY, steps=2)
    alone = [shared.features(now[b : b + 1], TEXT[b : b + 1], KEY[b : b + 1], steps=2) for b in range(2)]
    for scale, together in enumerate(whole):
        torch.testing.assert_close(torch.cat([maps[scale] for maps in alone]), together, atol=1e-4, rtol=1e-4)
    each = [shared.loss(latents[b : b + 1], now[b : b + 1], TEXT[b : b + 1], KEY[b : b + 1]) for b in range(2)]
    torch.testing.assert_close(torch.stack(each).mean(), shared.loss(latents, now, TEXT, KEY))


def test_present_and_text_are_heeded(shared, now):
    maps = shared.features(now, TEXT, KEY)[-1]
    assert not torch.allclose(shared.features(now + 1, TEXT, KEY)[-1], maps, atol=1e-3)
    assert not torch.allclose(shared.features(now, TEXT[::-1], KEY)[-1], maps, atol=1e-4)


# Early exit


def counted(world: World) -> dict[str, int]:
    """How often each module of the UNet is called from now on."""
    calls: dict[str, int] = {}
    for name, module in world.unet.named_modules():
        module.register_forward_pre_hook(lambda _, __, name=name: calls.update({name: calls.get(name, 0) + 1}))
    return calls


@pytest.mark.parametrize("steps", [1, 3])
def test_nothing_is_computed_after_the_last_named_block(world, now, steps):
    calls = counted(world)
    world.features(now, TEXT, KEY, steps)
    assert [calls.get(f"up_blocks.{i}", 0) for i in range(3)] == [steps, steps, steps - 1]
    assert calls["up_blocks.1"] == calls["conv_in"] == steps
    assert calls.get("conv_out", 0) == calls.get("conv_norm_out", 0) == steps - 1
    if steps == 1:
        assert not [name for name in calls if name.startswith(("up_blocks.2", "conv_norm_out", "conv_act", "conv_out"))]


def test_features_are_those_of_a_whole_pass(world, now):
    heard: list[Tensor] = []
    found = world.features(now, TEXT, KEY)
    for block in list(world.unet.up_blocks)[:2]:
        block.register_forward_hook(lambda _, __, out: heard.append(out))
    noisy = world.sigma[0] * draws.normal(KEY, *world.shape)
    world.denoise(noisy, world.sigma[:1].expand(2), now, world.tell(TEXT))
    assert [out.shape for out in found] == [(2, 4, 64, 4, 4), (2, 4, 64, 8, 8)]
    assert [out.shape[2] for out in found] == list(world.channels)
    assert all(torch.equal(a.flatten(0, 1), b) for a, b in zip(found, heard, strict=True))
    assert not any(module._forward_hooks for module in list(world.unet.up_blocks)[2:])


def test_steps_follow_the_schedule(monkeypatch, world, now):
    seen: list[float] = []
    network = world._network
    monkeypatch.setattr(
        world, "_network", lambda x, sigma, *rest: seen.append(float(sigma[0])) or network(x, sigma, *rest)
    )
    world.features(now, TEXT, KEY, steps=3)
    assert seen == world.sigma[:3].tolist()


# Frozen and joint


def learnt(imagination: Imagination, world: World, now: Tensor, steps: int = 1) -> None:
    optimizer = torch.optim.SGD([*imagination.parameters(), *world.parameters()], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        p_BND = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
        out, _ = imagination(world.features(now, TEXT, KEY), p_BND)
        (out - p_BND.roll(1, 0)).square().mean().backward()
        optimizer.step()


def test_frozen_means_no_gradient_and_no_change(world, now):
    world.learn(False)
    before = {name: value.clone() for name, value in world.state_dict().items()}
    assert not any(out.requires_grad for out in world.features(now, TEXT, KEY))
    learnt(Imagination(world.channels, 16, 4), world, now, steps=3)
    assert all(p.grad is None for p in world.parameters())
    assert all(torch.equal(value, before[name]) for name, value in world.state_dict().items())


def test_joint_training_reaches_the_network_but_not_what_it_skips(world, now):
    learnt(Imagination(world.channels, 16, 4), world.learn(True), now, steps=2)
    assert world.unet.conv_in.weight.grad.any()
    assert world.text.words.weight.grad.any()
    assert world.unet.conv_out.weight.grad is None


# Latents


def test_patches_with_all_components_are_exact_and_fewer_come_near():
    images = pictures()
    whole = Patches.fit(images, factor=4, channels=48)
    back = whole.decode(whole.encode(images.unsqueeze(0)))[0]
    assert (back.int() - images.int()).abs().max() <= 1
    errors = []
    for channels in (2, 6, 24):
        codec = Patches.fit(images, 4, channels)
        errors.append(float((codec.decode(codec.encode(images[None]))[0].float() - images).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1.0


def test_patches_are_of_unit_scale_and_the_same_for_the_same_pictures():
    codec, again = Patches.fit(pictures(), 4, 6), Patches.fit(pictures(), 4, 6)
    latent = codec.encode(pictures()[None])[0]
    torch.testing.assert_close(latent.mean(0), torch.zeros(6, 8, 8), atol=1e-4, rtol=0)
    torch.testing.assert_close(latent.square().mean((0, 2, 3)), torch.ones(6), atol=1e-3, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(codec.buffers(), again.buffers(), strict=True))


def test_plain_pictures_do_not_blow_up():
    codec = Patches.fit(torch.full((3, 8, 8, 3), 7, dtype=torch.uint8), 4, 6)
    assert codec.encode(torch.full((1, 1, 8, 8, 3), 9, dtype=torch.uint8)).abs().max() < 20


# Published networks


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Path:
    """A small random model as diffusers writes it."""
    root = tmp_path_factory.mktemp("svd")
    blocks = {"down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal")}
    blocks |= {"up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal")}
    unet = UNetSpatioTemporalConditionModel(
        **blocks, block_out_channels=(32, 64), num_attention_heads=2, layers_per_block=1, cross_attention_dim=32,
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24,
    )  # fmt: skip
    unet.save_pretrained(root / "unet")
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=2 * ("DownEncoderBlock2D",), block_out_channels=(32, 32), layers_per_block=1
    )
    vae.save_pretrained(root / "vae")
    return root


SMALL = replace(OUTLOOK, height=16, width=16, blocks=(0,))


def test_a_folder_in_diffusers_layout_loads(layout, tmp_path):
    world = begin_published(layout, SMALL, zoom=2)
    assert world.shape == (4, 4, 16, 16)
    assert world.sigma_max == 700
    for part, network in (("unet", world.unet), ("vae", world.codec.vae)):
        stored = load_file(layout / part / published.WEIGHTS)
        assert all(torch.equal(value, stored[name]) for name, value in network.state_dict().items())
    now = world.see(pictures(2, 16))
    maps = world.learn(True).features(now, TEXT, KEY)
    assert [out.shape for out in maps] == [(2, 4, 64, 16, 16)]
    maps[0].square().mean().backward()
    assert not any(p.requires_grad for p in world.codec.parameters())
    checkpoint.write(world, tmp_path)
    again = checkpoint.load(tmp_path)
    torch.testing.assert_close(again.features(now, TEXT, KEY), [out.detach() for out in maps])


def test_vae_latents_are_scaled_and_the_present_is_not(monkeypatch, layout):
    world = begin_published(layout, SMALL)
    images, seen = pictures(2, 16), []
    codec = world.codec
    pixels = images.movedim(-1, 1) / 127.5 - 1
    plain = codec.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(world.see(images), plain * 0.18215)
    monkeypatch.setattr(world.unet, "forward", lambda x, *_, **__: seen.append(x) or (x[:, :, :4],))
    world.denoise(torch.zeros(2, 4, 4, 8, 8), torch.ones(2), world.see(images), world.tell(TEXT))
    torch.testing.assert_close(seen[0][:, 0, 4:], plain)
    torch.testing.assert_close(seen[0][:, 3, 4:], plain)
    shown = codec.decode(world.see(images).unsqueeze(1))
    assert shown.shape == (2, 1, 16, 16, 3)


def damaged(layout: Path, root: Path, part: str) -> Path:
    """A copy of the layout of which a part's weights lack a tensor."""
    for name in ("unet", "vae"):
        (root / name).mkdir()
        for file in ("config.json", published.WEIGHTS):
            (root / name / file).write_bytes((layout / name / file).read_bytes())
    tensors = load_file(root / part / published.WEIGHTS)
    tensors.pop("conv_in.weight" if part == "unet" else "encoder.conv_in.weight")
    save_file(tensors, root / part / published.WEIGHTS, {"format": "pt"})
    return root


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_weights_that_lack_a_tensor_are_refused(layout, tmp_path, part):
    with pytest.raises(ValueError, match=rf"{part}: expected .*conv_in.weight"):
        begin_published(damaged(layout, tmp_path, part), SMALL)


def test_folders_that_are_none_are_named(tmp_path, layout):
    with pytest.raises(ValueError, match="nowhere: expected a folder with unet/ and vae/ .* found neither"):
        begin_published("nowhere", SMALL)
    with pytest.raises(ValueError, match="expected unet/config.json, found none"):
        begin_published(tmp_path, SMALL)


def test_missing_diffusers_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models", None)
    with pytest.raises(ImportError, match=r"engram/world needs diffusers; .*engram-vla\[world\]"):
        runpy.run_path(published.__file__)


# Text


class Encoder(nn.Module):
    """The small double of CLIP's text encoder."""

    def __init__(self):
        super().__init__()
        self.config, self.table = SimpleNamespace(hidden_size=16), nn.Embedding(50, 16)
        self.device = torch.device("cpu")

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def split(texts: list[str], max_length: int, **_: object) -> dict[str, Tensor]:
    return {"input_ids": torch.tensor([[len(text)] * max_length for text in texts])}


def test_clip_is_frozen_and_repeated_to_the_width_of_the_network(shared, now):
    text = Clip(Encoder(), split, 64)
    told = text(TEXT)
    assert told.shape == (2, 20, 64)
    assert torch.equal(told[..., :16], told[..., 48:])
    world = World(shared.unet, shared.codec, text, OUTLOOK, 20.0).learn(True)
    assert not any(p.requires_grad for p in text.parameters())
    assert world.features(now, TEXT, KEY)[0].shape == (2, 4, 64, 4, 4)
    with pytest.raises(ValueError, match="text: expected an encoder whose width divides 60, found 16"):
        Clip(Encoder(), split, 60)


def test_text_without_tokenizer_or_transformers_is_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="expected a CLIP text encoder .* found none"):
        clip(tmp_path, 64)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="expected a tokenizer .* found none; put it beside the text encoder"):
        clip(tmp_path, 64)
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="needs the package transformers, which is missing; pip install"):
        clip(tmp_path, 64)


def gutted(folder: Path) -> Path:
    """The folder, after a tensor of its weights is gone."""
    tensors = load_file(folder / "model.safetensors")
    save_file(dict(list(tensors.items())[1:]), folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_real_clip_is_kept_with_its_tokenizer(shared, tmp_path, now):
    transformers = pytest.importorskip("transformers")
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *"abcdefgh", *(letter + "</w>" for letter in "abcdefgh")]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.CLIPTextModel(config).save_pretrained(tmp_path)
    world = World(shared.unet, shared.codec, clip(tmp_path, 64), OUTLOOK, 20.0)
    (tmp_path / "kept").mkdir()
    checkpoint.write(world, tmp_path / "kept")
    with pytest.raises(ValueError, match="expected the weights of a CLIP text encoder"):
        clip(gutted(tmp_path), 64)
    again = checkpoint.load(tmp_path / "kept")
    assert torch.equal(again.tell(("a b", "c")), world.tell(("a b", "c")))
    torch.testing.assert_close(again.features(now, ("a b", "c"), KEY), world.features(now, ("a b", "c"), KEY))


def test_words_are_told_apart_by_place_and_longer_text_is_cut():
    words = Words(8)
    told = words(("red cube", "cube red", "", " ".join(30 * ["red"])))
    assert told.shape == (4, 16, 8)
    assert not torch.equal(told[0], told[1])
    assert torch.equal(told[2], words.words.weight[0] + words.place)


# What does not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "height: expected at least 1, found 0"),
        ({"frames": 0}, "frames: expected at least 1, found 0"),
        ({"stride": 0}, "stride: expected at least 1, found 0"),
        ({"blocks": ()}, r"blocks: expected numbers of up blocks .* found \(\)"),
        ({"blocks": (1, 0)}, r"blocks: expected numbers of up blocks .* found \(1, 0\)"),
    ],
)
def test_outlooks_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(OUTLOOK, **changes)


def test_parts_that_do_not_fit_are_refused(shared, now):
    parts = {"unet": shared.unet, "codec": shared.codec, "text": shared.text, "outlook": OUTLOOK, "sigma_max": 20.0}
    wrong = (
        ({"codec": Patches.fit(pictures(), 4, 5)}, "unet: expected channels in: 10, found 12"),
        ({"text": Words(8)}, "unet: expected width of cross-attention: 8, found 64"),
        ({"outlook": replace(OUTLOOK, blocks=(0, 3))}, r"blocks: expected up blocks 0 to 2, found \(0, 3\)"),
        ({"outlook": replace(OUTLOOK, height=64)}, "pictures: expected 32 x 32 pixels, found 64 x 32"),
        ({"sigma_max": 0.001}, "sigma_max: expected more than 0.002, found 0.001"),
    )
    for changes, message in wrong:
        with pytest.raises(ValueError, match=message):
            World(**parts | changes)
    with pytest.raises(ValueError, match=r"pictures: expected \(32, 32\) pixels, found \(16, 16\)"):
        shared.see(pictures(1, 16))
    for steps in (0, 21):
        with pytest.raises(ValueError, match=f"steps: expected 1 to 20, found {steps}"):
            shared.features(now, TEXT, KEY, steps)
    with pytest.raises(ValueError, match="channels: expected 1 to 48 .* found 49"):
        Patches(32, 32, 4, 49)
    with pytest.raises(ValueError, match="multiples of 5, found 32 x 32"):
        Patches(32, 32, 5)
    with pytest.raises(ValueError, match="zoom: expected a whole number of at least 1, found 0"):
        Vae(AutoencoderKLTemporalDecoder(block_out_channels=(32,)), 0)


# On disk


def test_what_is_written_is_loaded_frozen(world, now, tmp_path):
    checkpoint.write(world, tmp_path)
    again = checkpoint.load(tmp_path)
    assert not any(p.requires_grad for p in again.parameters())
    assert not again.training
    assert json.dumps(checkpoint.about(again)) == json.dumps(checkpoint.about(world))
    assert all(torch.equal(value, world.state_dict()[name]) for name, value in again.state_dict().items())
    maps = world.learn(False).features(now, TEXT, KEY)  # torch multiplies what may learn in another order
    assert all(torch.equal(a, b) for a, b in zip(again.features(now, TEXT, KEY), maps, strict=True))
    assert checkpoint.load(tmp_path, joint=True).unet.conv_in.weight.requires_grad


def edited(folder: Path, *path: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    inner = config["world"]
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("codec", "channels"), 5, "unet: expected channels in: 10, found 12"),
        (("codec", "factor"), 8, "tensor codec.basis: expected .* found shape"),
        (("outlook", "width"), 64, "pictures: expected 32 x 32 pixels, found 32 x 64"),
        (("unet", "colour"), 1, "expected the settings of a world model, found: .*colour"),
        (("outlook", "frames"), "many", "expected the settings of a world model, found: "),
        (("text",), {}, "expected the settings of a world model, found: 'kind'"),
    ],
)
def test_checkpoints_that_were_changed_are_refused(shared, tmp_path, path, value, message):
    checkpoint.write(shared, tmp_path)
    edited(tmp_path, *path, value=value)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path)


def test_folders_that_are_no_checkpoint_are_refused(shared, tmp_path):
    with pytest.raises(
        ValueError, match=r"expected a world model after stage 1 \(config.json\), found none; train one"
    ):
        checkpoint.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON, found"):
        checkpoint.load(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 1, "design": {}}')
    with pytest.raises(ValueError, match="expected a world model of format 1, found a file of something else"):
        checkpoint.load(tmp_path)
    checkpoint.write(shared, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="expected readable safetensors, found"):
        checkpoint.load(tmp_path)


# Futures


def test_futures_follow_and_the_last_frame_is_repeated():
    ahead = futures(np.array([5, 6]), frames=2, stride=2)
    assert ahead[:5].tolist() == [[2, 4], [3, 4], [4, 4], [4, 4], [4, 4]]
    assert ahead[5:].tolist() == [[7, 9], [8, 10], [9, 10], [10, 10], [10, 10], [10, 10]]


def test_a_demonstration_shorter_than_the_horizon_is_named():
    with pytest.raises(ValueError, match=r"episode 1: expected more than 6 ticks \(3 frames, 2 apart\), found 6"):
        futures(np.array([7, 6, 4]), frames=3, stride=2)


# Stage 1

LENGTHS = (9, 9, 7)
SPEC = Spec(cameras=("base", "wrist"), height=32, width=32, proprio_dim=3, action_dim=2, control_hz=20.0)
SETTINGS = WorldSettings(updates=5, rows=2, lr=2e-3, warmup=2, save=2, log=1, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return Dataset(record(tmp_path_factory.mktemp("data") / "demos", LENGTHS, SPEC))


class Killed(BaseException):
    """Nobody catches it."""


def trained(data: Dataset, out: Path, settings: WorldSettings = SETTINGS, held_out: tuple[int, ...] = ()) -> dict:
    world = new_tiny(data, OUTLOOK, held_out, factor=4, channels=6)
    return train_world.train_world(world, data, held_out, settings, out, quiet=True)


def lines(out: Path) -> list[dict]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def test_a_killed_run_goes_on_to_the_same_weights(monkeypatch, data, tmp_path):
    trained(data, tmp_path / "whole")
    update = train_world._Run.update

    def killed(run, clips):
        torch.manual_seed(run.step)  # nothing hangs on torch's own generator
        if run.step == 3:
            raise Killed
        return update(run, clips)

    with monkeypatch.context() as patch:
        patch.setattr(train_world._Run, "update", killed)
        with pytest.raises(Killed):
            trained(data, tmp_path / "killed")
    summary = trained(data, tmp_path / "killed")
    whole, again = (load_file(tmp_path / name / "checkpoint/model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "killed")] == [1, 2, 3, 4, 5]
    assert summary["updates"] == 5
    with pytest.raises(ValueError, match="a run with other settings"):
        trained(data, tmp_path / "killed", replace(SETTINGS, lr=1e-3))


def test_held_out_episodes_are_scored_and_never_shown(data, tmp_path):
    summary = trained(data, tmp_path, replace(SETTINGS, updates=1), held_out=(2,))
    assert Clips.plan(OUTLOOK, data, (2,)).frames.tolist() == list(range(18))
    kept = json.loads((tmp_path / "summary.json").read_text())
    assert {name: kept[name] for name in summary} == summary
    assert {"predicted", "expected", "repeated", "coded", "commit", "versions"} <= kept.keys()
    assert summary["predicted"] < summary["coded"]
    assert checkpoint.load(tmp_path / "checkpoint").outlook == OUTLOOK


def test_recomputing_and_bfloat16_change_little(data, tmp_path):
    once = replace(SETTINGS, updates=1)
    kinds = {"plain": once, "recompute": replace(once, recompute=True), "bfloat16": replace(once, bfloat16=True)}
    for name, settings in kinds.items():
        trained(data, tmp_path / name, settings)
    plain, recompute, bfloat16 = (lines(tmp_path / name)[0] for name in kinds)
    assert recompute["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-5)
    assert bfloat16["loss"] == pytest.approx(plain["loss"], rel=0.05)
    assert bfloat16["loss"] != plain["loss"]


def test_data_that_do_not_fit_are_refused(data, world, tmp_path):
    def with_outlook(**changes) -> None:
        world.outlook = replace(OUTLOOK, **changes)
        train_world.train_world(world, data, (), SETTINGS, tmp_path / "out", quiet=True)

    with pytest.raises(ValueError, match="camera: expected one of .*wrist.* found 'side'"):
        with_outlook(camera="side")
    with pytest.raises(ValueError, match=r"pictures: expected 64 x 32 pixels, found \(32, 32\)"):
        with_outlook(height=64)
    with pytest.raises(ValueError, match="episode 2: expected more than 8 ticks"):
        with_outlook(stride=2)
    with pytest.raises(ValueError, match=r"held out: expected some of the episodes 0 to 2, found \[3\]"):
        new_tiny(data, OUTLOOK, (3,))
    with pytest.raises(ValueError, match="held out: .* hold out fewer"):
        new_tiny(data, OUTLOOK, (0, 1, 2))
    with pytest.raises(ValueError, match="updates: expected at least 1, found 0"):
        WorldSettings(updates=0)
    assert not (tmp_path / "out").exists()


def test_two_clips_are_learned(data, tmp_path):
    settings = replace(SETTINGS, updates=80, lr=3e-3, warmup=15, save=1000, log=60)
    world = new_tiny(data, OUTLOOK, (2,), factor=4, channels=6)
    train_world.train_world(world, data, (2,), settings, tmp_path, quiet=True)
    predicted, expected, repeated, coded = score(world, data, (0, 1))
    assert repeated < predicted < coded
    assert repeated + 2 < expected < coded


# Imagination


@pytest.fixture
def maps() -> list[Tensor]:
    return [torch.randn(2, 4, 8, 4, 4), torch.randn(2, 4, 6, 8, 8)]


@pytest.mark.parametrize("fusion", ["guided", "add"])
def test_nothing_is_disturbed_at_first(maps, fusion):
    imagination, p_BND = Imagination((8, 6), 16, 4, fusion=fusion), torch.randn(2, 3, 16)
    out, opened = imagination(maps, p_BND)
    torch.testing.assert_close(out, p_BND)
    torch.testing.assert_close(opened, torch.tensor(OPEN if fusion == "guided" else 1.0))
    assert imagination.imagine(maps).shape == (2, 16, 16)


def test_a_closed_gate_lets_little_through(maps):
    imagination, p_BND = Imagination((8, 6), 16, 4), torch.randn(2, 3, 16)
    nn.init.normal_(imagination.feed[-1].weight)
    out, _ = imagination(maps, p_BND)
    added = imagination.feed(
        imagination.norm_feed(imagination.look(imagination.norm(p_BND), imagination.imagine(maps)))
    )
    torch.testing.assert_close(out, p_BND + OPEN * added)


def test_all_of_it_learns(maps):
    imagination, p_BND = Imagination((8, 6), 16, 4, depth=2), torch.randn(2, 3, 16)
    optimizer = torch.optim.Adam(imagination.parameters(), lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        out, _ = imagination(maps, p_BND)
        (out - p_BND.roll(1, 0)).square().mean().backward()
        optimizer.step()
    assert [name for name, p in imagination.named_parameters() if not p.grad.any()] == []
    assert float(imagination(maps, p_BND)[1]) != pytest.approx(OPEN, rel=1e-3)


def test_imagined_rows_are_independent_and_every_step_counts(maps):
    imagination = Imagination((8, 6), 16, 4)
    whole = imagination.imagine(maps)
    torch.testing.assert_close(imagination.imagine([x[1:] for x in maps]), whole[1:])
    for step in range(4):
        other = [x.clone() for x in maps]
        other[0][:, step] += 1
        assert not torch.allclose(imagination.imagine(other), whole, atol=1e-4)
    turned = [x.flip(-1) for x in maps]
    assert not torch.allclose(imagination.imagine(turned), whole, atol=1e-4)  # where something is matters


@pytest.mark.parametrize("side", [2, 4])
def test_pooled_features_are_as_good_as_whole_ones(maps, side):
    imagination = Imagination((8, 6), 16, 4, side=side)
    kept = pooled(maps, side)
    assert [x.shape[-1] for x in kept] == [side, side]
    torch.testing.assert_close(imagination.imagine(kept), imagination.imagine(maps), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": 0}, "queries: expected at least 1, found 0"),
        ({"depth": 0}, "depth: expected at least 1, found 0"),
        ({"heads": 3}, "expected maps, and a width that 3 heads share, found 2 maps, width 16"),
        ({"channels": ()}, "found 0 maps"),
    ],
)
def test_imaginations_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Imagination(**{"channels": (8, 6), "width": 16, "frames": 4} | changes)


def test_another_fusion_is_refused():
    with pytest.raises((ValueError, TypeError), match="fusion"):  # the latter from the type checks of the tests
        Imagination((8, 6), 16, 4, fusion="mean")


def test_features_of_another_world_are_refused(maps):
    for wrong in (maps[:1], [x[:, :3] for x in maps]):
        with pytest.raises(ValueError, match="features: expected 2 maps of 4 steps, found"):
            Imagination((8, 6), 16, 4).imagine(wrong)


def test_the_command_trains_and_says_what_is_wrong(data, tmp_path, capsys):
    given = ["train-world", "--data", str(data.roots[0]), "--out", str(tmp_path / "out"), "--frames", "4"]
    one = ["--held-out", "1"]
    cli.main([*given, *one, "--settings.updates", "1", "--settings.rows", "1"])
    said = capsys.readouterr().out
    assert f"{tmp_path}/out/checkpoint: " in said
    assert '"repeated"' in said
    for more, expected in (
        (["--held-out", "3"], "held_out: expected 0 to 2 of 3 episodes, found 3; keep some"),
        ([*one, "--zoom", "2"], "text, zoom: expected beside a published model (--start), found without"),
        ([*one, "--camera", "roof"], "roof"),
        ([*one, "--stride", "9"], "episode 0: expected more than 36 ticks (4 frames, 9 apart), found 9; lower them"),
        ([*one, "--start", str(tmp_path / "nothing")], str(tmp_path / "nothing")),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([*given, *more])
        assert ended.value.code == 2
        assert expected in capsys.readouterr().err.replace("\n", "")
