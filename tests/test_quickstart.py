"""The quickstart, end to end on something tiny: every stage leaves its part, and a finished run stays as it is."""

import json
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import fakes
import pytest
from test_data import record

from engram import provenance, quickstart, walltime
from engram.data.lerobot import Dataset
from engram.policies.design import Design
from engram.quickstart import Plan, run
from engram.rollout.checkpoint import evaluate_checkpoint
from engram.settings import Settings
from engram.train import fit

# not importorskip: MuJoCo must be imported by the environment, which chooses how it renders first
pytestmark = pytest.mark.skipif(find_spec("mujoco") is None, reason="needs the extra `tabletop`")

DESIGN = Design(m=1, chunk=2, trained="all")
PLAN = Plan(
    demos=2,
    episodes=2,
    settings=Settings(updates=2, slots=2, ticks=3, start="scratch", tensorboard=False),
    designs={"mu_vla": DESIGN, "memoryless": replace(DESIGN, m=0)},
    interventions=("swap", "reset"),
    delays=(2,),
    delay_episodes=1,
    chance_episodes=10,
)


def test_a_run_from_demonstrations_to_page(tmp_path, monkeypatch, capsys):
    def here(jobs):  # in this process, which has torch loaded
        for job in jobs.values():
            fit(Dataset(*job.data), job.design, job.settings, job.out, quiet=True)

    monkeypatch.setattr(quickstart, "fit_all", here)
    short = {"cue_ticks": 1, "delay_ticks": 1, "limit": 4}
    monkeypatch.setattr(quickstart, "evaluate_checkpoint", partial(evaluate_checkpoint, workers=0, knobs=short))
    monkeypatch.setattr(quickstart, "FILMS", 0)
    for task in PLAN.tasks:  # found, not made
        record(tmp_path / "demos" / task, (4, 3), replace(fakes.SPEC, height=64, width=64))
    summary = run(PLAN, tmp_path)
    assert set(summary["policies"]) == set(summary["visible"]) == {"memoryless", "mu_vla"}
    assert {kind: row["episodes"] for kind, row in summary["interventions"].items()} == {"swap": 2, "reset": 1}
    assert [(row["delay"], row["episodes"]) for row in summary["delay_curve"]] == [(2, 1)]
    assert (summary["chance_measured"]["episodes"], summary["paired"]["episodes"]) == (10, 2)
    assert summary["chance"] == summary["chance_measured"]["success"]
    commit = provenance.short(provenance.commit())
    assert [(run["updates"], run["trained_by"]) for run in summary["training"].values()] == [(2, [commit])] * 4
    assert summary["wall_seconds"] == round(walltime.spent(tmp_path), 1) > 0
    page = (tmp_path / "report.html").read_text()
    assert "make quickstart ARGS=&#x27;--updates 2 --demos 2 --episodes 2&#x27;" in page
    table = json.loads((tmp_path / "quickstart.json").read_text())
    assert table["configuration"]["designs"]["memoryless"]["m"] == 0
    assert [row["success"] for row in table["rows"][:2]] == [row["success"] for row in summary["policies"].values()]
    files = ("summary.json", "quickstart.json", "quickstart.md")
    before = {name: (tmp_path / name).read_bytes() for name in files}
    (tmp_path / "report.html").unlink()
    monkeypatch.setattr(provenance, "commit", lambda: "a later one")
    monkeypatch.setattr(quickstart, "figure", lambda *_: None)  # drawn above
    capsys.readouterr()
    assert run(PLAN, tmp_path) == summary
    assert {name: (tmp_path / name).read_bytes() for name in files} == before
    assert (tmp_path / "report.html").is_file()
    assert "chance, 10 episodes" not in capsys.readouterr().err
    assert quickstart.stamped(tmp_path, {"delay_curve": []})["commit"] == "a later one"  # other results are


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"demos": 4}, "demos: expected at least 16, one for each row of an update, found 4; ask for more"),
        ({"demos": 0}, "demos: expected 1 to 50000, found 0; choose"),
        ({"demos": -1}, "demos: expected 1 to 50000, found -1; choose"),
        ({"demos": 50_001}, "demos: expected 1 to 50000, found 50001; choose"),
        ({"episodes": 1}, r"episodes: expected at least 2 \(a swap needs .*\), found 1; choose"),
        ({"updates": 0}, "updates: expected at least 1, found 0; choose"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        quickstart.quickstart(tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()
