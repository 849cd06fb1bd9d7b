"""Where training computes: on a GPU if there is one, on the CPU if not, and the same numbers on both."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_train import SETTINGS, data, windows  # noqa: F401  (data is a fixture)

from engram import device
from engram.data.features import FeatureStore
from engram.data.lerobot import Dataset
from engram.data.windows import Windows
from engram.policies.design import Design
from engram.settings import Settings
from engram.train import fit

DESIGNS = {
    "muVLA": Design(m=2, chunk=2, trained="all"),
    "memoryless": Design(m=0, chunk=2, mask="full", trained="all"),
    "first-frame": Design(memory="first-frame", chunk=2, trained="all"),
}
SETTINGS = replace(SETTINGS, start="scratch")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(("there", "name", "expected"), [
    (False, "auto", "cpu"), (False, "cpu", "cpu"), (True, "auto", "cuda"), (True, "cpu", "cpu"), (True, "cuda", "cuda"),
])  # fmt: skip
def test_auto_is_the_gpu_where_there_is_one(monkeypatch, there, name, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device.found(name).type == expected


def test_a_gpu_that_is_not_there_is_refused_before_any_work(data: Dataset, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="expected a GPU for 'cuda', found none .*choose 'auto' or 'cpu'"):
        fit(data, DESIGNS["muVLA"], replace(SETTINGS, device="cuda"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_beside_the_work_waits_in_main_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (1000, 4000))
    assert device.holds(torch.device("cuda"), 699)
    assert not device.holds(torch.device("cuda"), 701)
    assert device.holds(torch.device("cpu"), 10**15)


def test_where_is_no_part_of_a_runs_identity():
    assert Settings(device="cpu").identity() == Settings(device="auto").identity()


def test_a_window_goes_elsewhere_whole_but_for_images_nobody_looks_at(data: Dataset):  # noqa: F811
    plain = windows(data)[3]
    moved = plain.to("meta")
    assert {moved.obs.images.device.type, moved.obs.proprio.device.type, moved.target.device.type} == {"meta"}
    assert moved.obs.images.shape == plain.obs.images.shape
    assert moved.features is None
    store = FeatureStore.build(data, lambda obs: obs.proprio)
    kept = Windows(data, windows(data).schedule, 2, store)[3].to("meta")
    assert kept.features is not None
    assert kept.features.device.type == "meta"
    assert kept.obs.images.shape == plain.obs.images.shape
    assert set(kept.obs.images.stride()) == {0}, "one byte stands for all of them"


@gpu
@pytest.mark.parametrize("name", list(DESIGNS))
def test_a_gpu_learns_what_the_cpu_learns_and_goes_on_where_it_stopped(data: Dataset, tmp_path, name):  # noqa: F811
    losses = {}
    for where in ("cpu", "cuda"):
        fit(data, DESIGNS[name], replace(SETTINGS, device=where), tmp_path / where, quiet=True)
        lines = (tmp_path / where / "metrics.jsonl").read_text().splitlines()
        losses[where] = [float(line.split('"loss": ')[1].split("}")[0].split(",")[0]) for line in lines]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=0.02)
    half = replace(SETTINGS, device="cuda", save=4)
    fit(data, DESIGNS[name], half, tmp_path / "again", quiet=True)
    assert fit(data, DESIGNS[name], half, tmp_path / "again", quiet=True)["updates"] == SETTINGS.updates
