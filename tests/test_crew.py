"""Trainings side by side: what one finds wrong in its input is said once, by the parent, while the others finish."""

import json
import signal
import threading
from dataclasses import replace

import fakes
import pytest
from test_data import record

from engram import crew
from engram.crew import CONTEXT, Job, _deaf, counters, fit_all, trained, trained_by
from engram.policies.design import Design
from engram.settings import Settings

DESIGN = Design(m=1, chunk=2, trained="all")
SETTINGS = Settings(updates=2, slots=2, ticks=3, start="scratch", tensorboard=False)


def test_wrong_input_is_one_sentence_and_the_others_finish(tmp_path, capfd):
    record(tmp_path / "demos", (4, 3), replace(fakes.SPEC, height=64, width=64))
    good = Job(
        (tmp_path / "demos",), DESIGN, replace(SETTINGS, workers=1), tmp_path / "good"
    )  # with a child of its own
    bad = replace(good, design=replace(DESIGN, trained="slots"), out=tmp_path / "bad")
    with pytest.raises(ValueError, match=r"^trained slots: expected 'all' for a backbone that starts from scratch"):
        fit_all({"bad": bad, "also bad": replace(bad, out=tmp_path / "worse"), "good": good})
    assert "Traceback" not in capfd.readouterr().err
    assert trained(good)
    assert counters(good)["updates"] == 2
    assert not (tmp_path / "bad" / "checkpoint").exists()


@pytest.mark.parametrize(("free_gb", "most"), [(1, 1), (6, 2), (60, 4)])
def test_no_more_at_once_than_fit_into_memory(tmp_path, monkeypatch, free_gb, most):
    (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {free_gb * 10**9 // 1024} kB\n")
    monkeypatch.setattr(crew, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(crew.provenance, "cores", lambda: 4)
    assert crew.at_once() == most
    assert crew.at_once(room_gb=9.0) == max(1, min(4, free_gb // 9))


def test_ctrl_c_is_heard_by_the_parent_alone():
    before = signal.getsignal(signal.SIGINT)
    with _deaf():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # and so it is in a process started here
    assert signal.getsignal(signal.SIGINT) is before


def test_trainings_end_with_a_parent_that_was_killed(tmp_path):
    ours, theirs = CONTEXT.Pipe(duplex=False)
    data = Stuck()
    data.pipe = theirs
    parent = CONTEXT.Process(target=fit_all, args=({"stuck": Job(data, DESIGN, SETTINGS, tmp_path)},))
    parent.start()
    theirs.close()
    assert ours.recv() == "training"
    parent.kill()
    parent.join(300)
    assert ours.poll(120), "the training outlived its parent"
    with pytest.raises(EOFError):  # the last holder of the pipe's other end is gone
        ours.recv()


class Stuck(tuple):
    """Data sets that never come; `pipe` hears of the process that waits for them."""

    def __iter__(self):
        self.pipe.send("training")
        threading.Event().wait(120)
        return super().__iter__()


def test_every_commit_that_trained_is_named_once(tmp_path):
    commits = ("a" * 40, "a" * 40, "b" * 40 + "-dirty", "a" * 40)
    sittings = [{"from_update": number, "commit": commit} for number, commit in enumerate(commits)]
    (tmp_path / "config.json").write_text(json.dumps({"sittings": sittings}))
    assert trained_by(tmp_path) == ["a" * 12, "b" * 12 + "-dirty"]
