"""Where training computes: on a GPU if there is one, on the CPU if not, and nearly the same numbers on both.

ENGRAM_TEST_GPU=1 pytest tests/test_device.py        # with the tests that need a GPU
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import SETTINGS, Killed, data, windows  # noqa: F401  (data is a fixture)

from engram import device
from engram.data.features import FeatureStore
from engram.data.lerobot import Dataset
from engram.data.windows import Windows
from engram.policies.design import Design
from engram.settings import Settings
from engram.train import Run, fit

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


def test_a_run_of_before_there_was_emphasis_goes_on():
    assert "emphasis" not in Settings().identity()
    assert Settings(emphasis=4.0).identity()["emphasis"] == 4.0


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
def test_a_gpu_learns_nearly_what_the_cpu_learns(data: Dataset, tmp_path, name):  # noqa: F811
    for where in ("cpu", "cuda"):
        fit(data, DESIGNS[name], replace(SETTINGS, device=where), tmp_path / where, quiet=True)
    np.testing.assert_allclose(losses(tmp_path / "cuda"), losses(tmp_path / "cpu"), rtol=0.02)


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=gpu)])
def test_a_run_that_was_killed_goes_on_there(data: Dataset, tmp_path, monkeypatch, where):  # noqa: F811
    settings = replace(SETTINGS, device=where)
    fit(data, DESIGNS["muVLA"], settings, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", killed_at(7, Run.update))
        with pytest.raises(Killed):
            fit(data, DESIGNS["muVLA"], settings, tmp_path / "killed", quiet=True)
    fit(data, DESIGNS["muVLA"], settings, tmp_path / "killed", quiet=True)
    np.testing.assert_allclose(losses(tmp_path / "killed"), losses(tmp_path / "whole"), rtol=0.02)
    first = [
        sitting["from_update"] for sitting in json.loads((tmp_path / "killed/config.json").read_text())["sittings"]
    ]
    assert first == [0, 5], "it went on from its checkpoint"


@gpu
@pytest.mark.parametrize("stay", [True, False])
def test_features_stay_on_the_gpu_if_they_may(data: Dataset, stay):  # noqa: F811
    store = FeatureStore.build(data, lambda obs: obs.proprio, device="cuda", stay=stay)
    assert store.values.device.type == ("cuda" if stay else "cpu")
    frames = torch.arange(3)
    np.testing.assert_allclose(store[frames].cpu(), data.state[:3], atol=1e-3)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def killed_at(updates: int, update):
    """`Run.update`, until so many are done."""

    def until(run: Run, window):
        if run.step == updates:
            raise Killed
        return update(run, window)

    return until
