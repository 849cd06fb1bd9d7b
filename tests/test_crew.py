"""Trainings side by side: what one finds wrong in its input is said once, by the parent, while the others finish."""

import os
import signal
import threading
from dataclasses import replace

import fakes
import pytest
from test_data import record

from engram.crew import CONTEXT, Job, _deaf, _end_with_parent, counters, fit_all, trained
from engram.policies.design import Design
from engram.settings import Settings

DESIGN = Design(m=1, chunk=2, trained="all")
SETTINGS = Settings(updates=2, slots=2, ticks=3, start="scratch", tensorboard=False)


def test_wrong_input_is_one_sentence_and_the_others_finish(tmp_path, capfd):
    record(tmp_path / "demos", (4, 3), replace(fakes.SPEC, height=64, width=64))
    good = Job((tmp_path / "demos",), DESIGN, SETTINGS, tmp_path / "good")
    bad = replace(good, design=replace(DESIGN, trained="slots"), out=tmp_path / "bad")
    with pytest.raises(ValueError, match=r"^trained slots: expected 'all' for a backbone that starts from scratch"):
        fit_all({"bad": bad, "also bad": replace(bad, out=tmp_path / "worse"), "good": good})
    assert "Traceback" not in capfd.readouterr().err
    assert trained(good)
    assert counters(good)["updates"] == 2
    assert not (tmp_path / "bad" / "checkpoint").exists()


def test_ctrl_c_is_heard_by_the_parent_alone():
    before = signal.getsignal(signal.SIGINT)
    with _deaf():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # and so it is in a process started here
    assert signal.getsignal(signal.SIGINT) is before


def test_trainings_end_with_a_parent_that_was_killed():
    ours, theirs = CONTEXT.Pipe(duplex=False)
    parent = CONTEXT.Process(target=_parent, args=(theirs,))
    parent.start()
    theirs.close()
    parent.join(300)
    assert parent.exitcode == -signal.SIGKILL
    assert ours.poll(120), "the training outlived its parent"
    with pytest.raises(EOFError):  # the last holder of the pipe's other end is gone
        ours.recv()


def _parent(pipe):
    hears, started = CONTEXT.Pipe(duplex=False)
    CONTEXT.Process(target=_training, args=(pipe, started)).start()
    hears.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def _training(pipe, started):
    threading.Thread(target=_end_with_parent, daemon=True).start()
    started.send(True)
    threading.Event().wait(120)
