"""Checkpoints: what is saved comes back bit for bit, what is damaged is named, what fails leaves the old one."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import fakes
import pytest
import torch
from safetensors.torch import load_file, save_file

from engram.data.normalise import Normaliser
from engram.policies import checkpoint
from engram.policies.base import Policy
from engram.policies.build import build
from engram.policies.design import BankDesign, Design

DESIGNS = [
    Design(m=0),
    Design(m=2, mask="full", tbptt=2, trained="language", replan=2),
    Design(m=2, rule=0.1),
    Design(memory="first-frame"),
    Design(memory="last-frames", frames=3, mask="full"),
    Design(memory="bank", bank=BankDesign(capacity=3, streams="perceptual", when="keyframes")),
]


def made(design: Design, seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    action = Normaliser(torch.arange(7.0), torch.arange(1.0, 8.0))
    return build(design, fakes.SPEC, action).eval()


@pytest.fixture
def saved(tmp_path) -> Path:
    design = Design(m=2)
    checkpoint.save_pretrained(made(design), design, tmp_path / "policy")
    return tmp_path / "policy"


def same(a: Policy, b: Policy) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: f"{d.memory}-m{d.m}-{d.mask}")
def test_what_is_saved_comes_back(tmp_path, design):
    policy = made(design)
    checkpoint.save_pretrained(policy, design, tmp_path / "a" / "policy")
    loaded, found = checkpoint.load(str(tmp_path / "a" / "policy"))
    assert found == design
    assert loaded.spec == policy.spec
    assert (loaded.chunk, loaded.replan, loaded.training) == (policy.chunk, policy.replan, False)
    assert same(loaded, policy)
    window = fakes.window(2, 2)
    (loss, carry, _), (again, after, _) = (p.loss(p.init(2), window) for p in (policy, loaded))
    assert torch.equal(loss, again)
    assert all(torch.equal(carry[key], after[key]) for key in carry)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["policy"]


def test_the_same_policy_gives_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        checkpoint.save_pretrained(made(Design(m=2)), Design(m=2), tmp_path / folder)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_second_save_replaces_all_of_the_first(saved):
    (saved / "training.json").write_text("of the first")
    design = Design(memory="first-frame")
    checkpoint.save_pretrained(made(design, seed=1), design, saved)
    assert checkpoint.load(saved)[1] == design
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]


def refuses(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(folder)
    assert str(folder) in str(caught.value) or folder.name not in message


def edit(folder: Path, part: str, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    config[part] |= changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("design", "m", "4"), ("design", "m", 4.5), ("design", "mask", "half"), ("spec", "cameras", "base")],
)
def test_a_value_of_another_kind(saved, part, name, value):
    edit(saved, part, **{name: value})
    refuses(saved, rf"config.json: {name}: expected .*, found '?{value}'?.*; the file was changed")


def test_a_folder_that_is_not_there(tmp_path):
    refuses(tmp_path / "nowhere", r"nowhere: expected a checkpoint folder with config.json, found none; give")


def test_a_folder_without_config(saved):
    (saved / "config.json").unlink()
    refuses(saved, r"expected a checkpoint folder with config.json, found none")


def test_a_run_instead_of_its_checkpoint(saved):
    run = saved.parent
    saved.rename(run / "checkpoint")
    (run / "config.json").write_text('{"sittings": []}')
    refuses(run, rf"{run}: expected a checkpoint folder, found a run that holds one; give {run}/checkpoint")


def test_a_file_instead_of_a_folder(saved):
    refuses(saved / "model.safetensors", r"expected a checkpoint folder with config.json, found none")


@pytest.mark.parametrize("text", ["", "{", "{'single': 'quotes'}", "\x00\x01"])
def test_a_config_that_is_not_json(saved, text):
    (saved / "config.json").write_text(text)
    refuses(saved, r"config.json: expected JSON, found .*; the file is damaged")


def test_a_config_that_is_not_even_text(saved):
    (saved / "config.json").write_bytes(b"\xff\xfe\x80")
    refuses(saved, r"config.json: expected JSON, found .*; the file is damaged")


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["LlamaForCausalLM"], "hidden_size": 4096},
        {"format": 99, "design": {}, "spec": {}},
        {"format": 1, "design": {}},
        {"format": 1, "design": 5, "spec": None},
        [],
        "engram",
    ],
)
def test_a_config_of_something_else(saved, config):
    (saved / "config.json").write_text(json.dumps(config))
    refuses(saved, r"config.json: expected an Engram checkpoint of format 1, found a file of something else; give")


def test_a_design_of_another_version(saved):
    edit(saved, "design", heads=12)
    refuses(saved, r"expected the fields of Design, found a difference in heads; load it with the version")


def test_a_design_of_before_there_was_a_bank(saved):
    config = json.loads((saved / "config.json").read_text())
    del config["design"]["bank"]
    (saved / "config.json").write_text(json.dumps(config))
    assert checkpoint.load(saved)[1] == Design(m=2)


def test_a_bank_of_another_version(saved):
    edit(saved, "design", bank=asdict(BankDesign()) | {"rooms": 3})
    refuses(saved, r"expected the fields of BankDesign, found a difference in rooms; load it with the version")
    edit(saved, "design", bank=7)
    refuses(saved, r"bank: expected the fields of BankDesign, found 7; the file was changed, use another checkpoint")


def test_a_spec_that_lacks_a_field(saved):
    config = json.loads((saved / "config.json").read_text())
    del config["spec"]["control_hz"]
    (saved / "config.json").write_text(json.dumps(config))
    refuses(saved, r"expected the fields of Spec, found a difference in control_hz; load it with the version")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tbptt": 0}, "K .* at least 1 tick, .* found 0"),
        ({"tbptt": -3}, "K .* at least 1 tick, .* found -3"),
        ({"m": -1}, "m: expected 0 or more memory tokens, found -1"),
        ({"rule": "medium"}, "rule: expected 'plain', 'gated' or an ema rate .* found 'medium'"),
        ({"rule": 2.0}, "rule: expected .* found 2.0"),
        ({"replan": 9}, "replan: expected 1 to 4 ticks"),
        ({"memory": "last-frames", "frames": 1}, "frames: expected at least 2"),
    ],
)
def test_a_design_that_cannot_be(saved, bad, message):
    edit(saved, "design", **bad)
    refuses(saved, message)


def test_a_choice_that_does_not_exist(saved):
    # In a process of its own: here the type checks of the tests would be first.
    bad = [{"rule": "m"}, {"mask": "m"}, {"loss": "m"}, {"memory": "m"}, {"trained": "m"}, {"size": "m!"}]
    good = (saved / "config.json").read_text()
    code = f"""
import json, pathlib
from engram.policies import checkpoint
folder = pathlib.Path({str(saved)!r})
for bad in {bad!r}:
    config = json.loads({good!r})
    config["design"] |= bad
    (folder / "config.json").write_text(json.dumps(config))
    try:
        checkpoint.load(folder)
    except ValueError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    for line, ((field, value),) in zip(said, (one.items() for one in bad), strict=True):
        assert f"{field}: expected " in line
        assert f"found '{value}'" in line


def tensors(folder: Path, change) -> None:
    found = load_file(folder / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors")


def test_no_weights(saved):
    (saved / "model.safetensors").unlink()
    refuses(saved, r"model.safetensors: expected readable safetensors, found: .*; use another checkpoint")


@pytest.mark.parametrize("keep", [0, 4, 1000, 0.5, -1])
def test_weights_cut_short(saved, keep):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    refuses(saved, r"model.safetensors: expected readable safetensors, found: .*; use another checkpoint")


def test_weights_that_are_something_else(saved):
    torch.save({"memory": torch.zeros(3)}, saved / "model.safetensors")
    refuses(saved, r"model.safetensors: expected readable safetensors")


@pytest.mark.parametrize("name", ["memory.initial", "place", "head.action.mean", "trunk.backbone.proprio_mean"])
def test_a_tensor_is_missing(saved, name):
    tensors(saved, lambda found: found.pop(name))
    refuses(saved, rf"tensor {name}: expected shape .*, found none; .* use another checkpoint")


def test_a_tensor_is_of_another_shape(saved):
    tensors(saved, lambda found: found.update({"memory.initial": torch.zeros(64, 128)}))
    refuses(saved, r"tensor memory.initial: expected shape \(2, 128\) of float32, found shape \(64, 128\) of float32")


def test_a_tensor_is_of_another_dtype(saved):
    tensors(saved, lambda found: found.update({"memory.initial": found["memory.initial"].to(torch.int64)}))
    refuses(saved, r"tensor memory.initial: expected shape \(2, 128\) of float32, found shape \(2, 128\) of int64")


def test_a_tensor_too_many(saved):
    tensors(saved, lambda found: found.update({"memory.extra": torch.zeros(1)}))
    refuses(saved, r"tensor memory.extra: expected none, found shape \(1,\) of float32; .* use another checkpoint")


def test_weights_of_another_design(saved):
    edit(saved, "design", m=0)
    refuses(saved, r"tensor memory.gate.bias: expected none, found shape")


class TestPretrained:
    """By folder or by name on the Hub; the Hub itself is a double that knows one repository."""

    @pytest.fixture
    def asked(self, saved, monkeypatch) -> list:
        asked = []

        def download(name, allow_patterns):
            asked.append((name, allow_patterns))
            if name != "someone/policy":
                raise FileNotFoundError("404 Client Error.\nRepository Not Found")
            return str(saved)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        monkeypatch.chdir(saved.parent)
        return asked

    @pytest.mark.parametrize("name", ["policy", "./policy", Path("policy")])
    def test_a_folder(self, asked, name):
        policy, design = checkpoint.from_pretrained(name)
        assert same(policy, made(Design(m=2)))
        assert design == Design(m=2)
        assert asked == []

    def test_a_folder_that_looks_like_a_repository(self, asked, saved):
        saved.parent.joinpath("someone").mkdir()
        checkpoint.save_pretrained(made(Design(m=3)), Design(m=3), Path("someone/policy"))
        assert checkpoint.from_pretrained("someone/policy")[1] == Design(m=3)
        assert asked == []

    def test_a_repository(self, asked):
        policy, design = checkpoint.from_pretrained("someone/policy")
        assert same(policy, made(Design(m=2)))
        assert design == Design(m=2)
        assert asked == [("someone/policy", ["config.json", "model.safetensors"])]

    def test_neither(self, asked):
        said = r"someone/else: expected a checkpoint folder here or .* Hub, found neither \(404 Client Error.\); see"
        with pytest.raises(ValueError, match=said):
            checkpoint.from_pretrained("someone/else")

    @pytest.mark.parametrize("name", ["nowhere", "runs/nowhere/checkpoint", "/nowhere", "./nowhere", "../nowhere"])
    def test_what_can_only_be_a_folder(self, asked, name):
        with pytest.raises(ValueError, match="expected a checkpoint folder with config.json, found none; give"):
            checkpoint.from_pretrained(name)
        assert asked == []


def test_a_load_between_the_renames_of_a_save_disturbs_nobody(saved, monkeypatch):
    rename, loaded = os.replace, []

    def renamed(a, b):
        rename(a, b)
        loaded.append(checkpoint.load(saved)[0])

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", renamed)
        checkpoint.save_pretrained(made(Design(m=2), seed=1), Design(m=2), saved)
    assert [same(policy, made(Design(m=2), seed)) for seed, policy in enumerate(loaded)] == [True, True]
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


class TestInterrupted:
    """Whatever happens while saving, the folder holds the previous policy, and the next save works."""

    def require_intact(self, saved: Path, before: Policy) -> None:
        assert same(checkpoint.load(saved)[0], before)
        checkpoint.save_pretrained(made(Design(m=3), seed=2), Design(m=3), saved)
        assert same(checkpoint.load(saved)[0], made(Design(m=3), seed=2))
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]

    def test_the_disk_is_full(self, saved, monkeypatch):
        def full(tensors, path):
            Path(path).write_bytes(b"half of it")
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save_file", full)
            with pytest.raises(OSError, match="No space left"):
                checkpoint.save_pretrained(made(Design(m=2), seed=1), Design(m=2), saved)
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]  # nothing left to fill the disk
        self.require_intact(saved, made(Design(m=2)))

    def test_a_kill_while_writing(self, saved):
        new = saved.with_name(saved.name + ".new")  # no process lives to clear it
        new.mkdir()
        (new / "model.safetensors").write_bytes(b"half of it")
        (new / "of another format").mkdir()
        self.require_intact(saved, made(Design(m=2)))

    @pytest.mark.parametrize("survivors", [0, 1])
    def test_a_kill_between_the_renames(self, saved, monkeypatch, survivors):
        renames = []

        def rename(a, b):
            if len(renames) == survivors:
                raise KeyboardInterrupt
            renames.append((a, b))
            return os.rename(a, b)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.os, "replace", rename)
            with pytest.raises(KeyboardInterrupt):
                checkpoint.save_pretrained(made(Design(m=2), seed=1), Design(m=2), saved)
        self.require_intact(saved, made(Design(m=2)))

    def test_the_first_save_fails(self, tmp_path, monkeypatch):
        def full(tensors, path):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save_file", full)
            with pytest.raises(OSError, match="No space left"):
                checkpoint.save_pretrained(made(Design()), Design(), tmp_path / "policy")
        assert list(tmp_path.iterdir()) == []


def test_the_config_is_readable(saved):
    config = json.loads((saved / "config.json").read_text())
    assert config["design"] == asdict(Design(m=2))
    assert tuple(config["spec"]["cameras"]) == fakes.SPEC.cameras
