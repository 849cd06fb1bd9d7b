"""Slim checkpoints: the same policy without what ships with the package."""

import json
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
import torch

from engram.backbones import tiny
from engram.cli import main
from engram.data.normalise import Normaliser
from engram.files import run_folder, run_name
from engram.policies import checkpoint
from engram.policies.build import build
from engram.policies.design import Design
from engram.types import Spec

SPEC = Spec(tiny.CAMERAS, tiny.SIDE, tiny.SIDE, 7, 7, 20.0)


@pytest.fixture(params=list(tiny.SIDES), ids=lambda path: path.stem)
def saved(tmp_path, request) -> Path:
    """A policy on shipped weights whose memory and slots were trained since."""
    design, side = Design(m=2), tiny.SIDES[request.param]
    spec, action = replace(SPEC, height=side, width=side), Normaliser(torch.arange(7.0), torch.arange(1.0, 8.0))
    policy = build(design, spec, action, tiny.pretrained(request.param))
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    checkpoint.save_pretrained(policy, design, tmp_path / "policy")
    return tmp_path / "policy"


def edit(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_a_slim_checkpoint_is_the_same_policy_and_smaller(saved, tmp_path, capsys):
    main(["export", str(saved), "--out", str(tmp_path / "slim")])
    whole, thin = (checkpoint.load(folder)[0].state_dict() for folder in (saved, tmp_path / "slim"))
    assert whole.keys() == thin.keys()
    assert all(torch.equal(whole[name], thin[name]) for name in whole)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (saved, tmp_path / "slim")]
    assert sizes[1] < 0.6 * sizes[0]
    assert f"{tmp_path / 'slim'}: {sizes[1] / 1e6:.1f} MB" in capsys.readouterr().out


def test_an_existing_folder_is_left_alone(saved):
    with pytest.raises(ValueError, match="expected a new folder, found an existing one"):
        checkpoint.slim(saved, saved)


def test_a_policy_without_shipped_weights_is_refused(tmp_path):
    checkpoint.save_pretrained(fakes.policy(Design(m=2)), Design(m=2), tmp_path / "policy")
    with pytest.raises(ValueError, match="tensor"):  # of another width than any shipped size
        checkpoint.slim(tmp_path / "policy", tmp_path / "slim")
    torch.manual_seed(0)
    policy = build(Design(m=2), SPEC, Normaliser(torch.zeros(7), torch.ones(7)))
    checkpoint.save_pretrained(policy, Design(m=2), tmp_path / "random")
    with pytest.raises(ValueError, match="expected a vision tower that ships with the package, found another"):
        checkpoint.slim(tmp_path / "random", tmp_path / "slim")
    assert not (tmp_path / "slim").exists()


@pytest.mark.parametrize("base", [[tiny.PACKAGED.name, "0" * 64], ["other.safetensors", "0" * 64], ["../x", ""]])
def test_other_shipped_weights_than_it_was_made_with_are_refused(saved, tmp_path, base):
    checkpoint.slim(saved, tmp_path / "slim")
    edit(tmp_path / "slim", base=base)
    with pytest.raises(ValueError, match=r"expected shipped weights .* load it with the version of Engram that wrote"):
        checkpoint.load(tmp_path / "slim")


@pytest.mark.parametrize("base", ["tiny_s.safetensors", ["one"], [1, 2], None])
def test_a_base_that_is_none_is_refused(saved, base):
    edit(saved, base=base)
    with pytest.raises(ValueError, match="expected an Engram checkpoint of format"):
        checkpoint.load(saved)


def test_a_slim_checkpoint_that_lost_its_base_is_refused(saved, tmp_path):
    checkpoint.slim(saved, tmp_path / "slim")
    config = json.loads((tmp_path / "slim" / "config.json").read_text())
    del config["base"]
    (tmp_path / "slim" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"tensor trunk\.backbone\..*: expected shape .*, found none"):
        checkpoint.load(tmp_path / "slim")


@pytest.mark.parametrize(
    "folder", sorted((Path(__file__).parents[1] / "results" / "weights").iterdir()), ids=lambda folder: folder.name
)
def test_published_weights_are_on_the_weights_that_ship(folder):
    policy, _ = checkpoint.load(str(folder))
    assert policy.spec.cameras == tiny.CAMERAS


def test_results_of_published_weights_are_kept_away_from_them():
    assert (run_folder(Path("a/run/checkpoint")), run_name(Path("a/run/checkpoint"))) == (Path("a/run"), "run")
    published = Path("results/weights/mikasa_mu_vla")
    assert (run_folder(published), run_name(published)) == (Path("runs/mikasa_mu_vla"), "mikasa_mu_vla")
