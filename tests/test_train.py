"""Training: kill it and start it again, and the bits are the same; it learns; it refuses what does not fit."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fakes
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_data import record

from engram.backbones import notes, tiny
from engram.data.lerobot import Dataset, Writer
from engram.data.normalise import Normaliser
from engram.data.schedule import Episodes, Schedule
from engram.data.windows import Windows
from engram.policies import checkpoint
from engram.policies.average import Average
from engram.policies.begin import new_policy
from engram.policies.build import Design, build
from engram.policies.design import BankDesign, require_whole_windows
from engram.policies.published import published
from engram.policies.through import Through
from engram.train import CALIBRATION_WINDOWS, Run, Settings, _peak_gb, calibrate, fit, train

LENGTHS = (5, 4, 6, 5)
DESIGNS = {
    "gated": Design(m=2, tbptt=2, chunk=2),
    "memoryless": Design(m=0, chunk=2, mask="full", trained="language"),
    "last-frames": Design(memory="last-frames", frames=3, chunk=2),
    "bank": Design(memory="bank", chunk=2, trained="all", bank=BankDesign(capacity=2, draws=2)),
}
SETTINGS = Settings(updates=12, slots=2, ticks=3, lr=3e-3, warmup=3, save=5, log=1, tensorboard=False)
SCRATCH = Design(m=1, chunk=2, trained="all")
ABOUT = {"frames": sum(LENGTHS)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    dataset = Dataset(record(tmp_path_factory.mktemp("data") / "demos", LENGTHS, fakes.SPEC))
    dataset.prepare()
    return dataset


def windows(data: Dataset, settings: Settings = SETTINGS, chunk: int = 2) -> Windows:
    if settings.ticks == "episode":
        return Windows(data, Episodes(data.lengths, settings.slots, settings.seed), chunk)
    return Windows(data, Schedule(data.lengths, settings.slots, settings.ticks, settings.seed, stagger=True), chunk)


class Killed(BaseException):
    """Nobody catches it."""


def run(data: Dataset, out: Path, name: str = "gated", settings: Settings = SETTINGS) -> dict:
    """A sitting of a run: a new policy, as a new process makes it."""
    return train(fakes.policy(DESIGNS[name]), DESIGNS[name], windows(data, settings), settings, out, ABOUT, quiet=True)


def killed_at(
    step: int, data: Dataset, out: Path, monkeypatch, name: str = "gated", settings: Settings = SETTINGS
) -> None:
    """A sitting that dies when it has made `step` updates and not saved the last of them."""
    update = Run.update

    def dying(self, window):
        if self.step == step:
            raise Killed
        return update(self, window)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", dying)
        with pytest.raises(Killed):
            run(data, out, name, settings)


def metrics(out: Path) -> list[dict]:
    """Lines of metrics but for the clock."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def weights(out: Path) -> bytes:
    return (out / "checkpoint" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "kills"), [("gated", (2, 5, 11)), ("memoryless", (7,)), ("last-frames", (7,)), ("bank", (7,))]
)
def test_a_killed_run_ends_with_the_same_bits(data, tmp_path, monkeypatch, name, kills):
    straight = run(data, tmp_path / "straight", name)
    for step in kills:
        killed_at(step, data, tmp_path / "killed", monkeypatch, name)
    resumed = run(data, tmp_path / "killed", name)
    assert weights(tmp_path / "killed") == weights(tmp_path / "straight")
    state = [(tmp_path / out / "checkpoint/training.safetensors").read_bytes() for out in ("straight", "killed")]
    assert state[0] == state[1]  # the optimizer and the carry
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "straight")
    assert [line["step"] for line in metrics(tmp_path / "killed")] == list(range(1, 13))
    assert (resumed["updates"], resumed["frames"]) == (straight["updates"], straight["frames"])


def test_memory_is_calibrated_twice_before_training_where_the_design_says_so(data, tmp_path):
    settings = Settings(updates=1, slots=2, start="scratch", tensorboard=False)
    design = Design(m=2, chunk=2, trained="all")
    kept = {}
    for asked in (True, False):
        fit(data, replace(design, standardise=asked), settings, tmp_path / str(asked), quiet=True)
        policy = checkpoint.load(tmp_path / str(asked) / "checkpoint")[0]
        kept[asked] = policy.memory.standard.state_dict()
    fresh, some = new_policy(data, design, settings), windows(data, settings)
    assert all(torch.equal(kept[False][name], value) for name, value in fresh.memory.standard.state_dict().items())
    for rounds in (1, 2):
        fresh.calibrate(some[step] for step in range(CALIBRATION_WINDOWS))
        same = [torch.equal(kept[True][name], value) for name, value in fresh.memory.standard.state_dict().items()]
        assert same == [rounds == 2] * 2


def test_notes_are_not_measured_anew(data, tmp_path, monkeypatch):
    torch.manual_seed(0)
    backbone = tiny.Tiny(len(data.spec.cameras), data.spec.proprio_dim, **tiny.SIZES["s"], side=data.spec.height)
    backbone.notes = notes.Notes(backbone.width)
    backbone.notes.mean.normal_()
    mean, design = backbone.notes.mean.clone(), Design(m=2, chunk=2, notes=True)
    policy = build(design, data.spec, Normaliser(torch.zeros(7), torch.ones(7)), backbone)
    monkeypatch.setattr("engram.train.new_policy", lambda *_: policy)
    fit(data, design, Settings(updates=1, slots=2, tensorboard=False), tmp_path / "run", quiet=True)
    kept = checkpoint.load(tmp_path / "run" / "checkpoint")[0].memory.standard.centre
    assert torch.equal(kept, mean.expand(2, -1))


def test_a_calibration_goes_on_until_enough_episodes_have_begun(data, monkeypatch):
    seen, some = [], windows(data, replace(SETTINGS, ticks=1))
    monkeypatch.setattr(Through, "calibrate", lambda policy, given: seen.append([w.first.sum() for w in given]))
    monkeypatch.setattr("engram.train.CALIBRATION_WINDOWS", 1)
    calibrate(fakes.policy(DESIGNS["gated"]), some, quiet=True)
    assert seen[0] == seen[1]
    assert sum(seen[0]) >= len(LENGTHS) > sum(seen[0][:-1])


def test_a_killed_run_of_a_calibrated_memory_ends_with_the_same_bits(data, tmp_path, monkeypatch):
    settings = replace(SETTINGS, start="scratch", updates=6, save=2)

    def sitting(out):
        fit(data, Design(m=2, chunk=2, trained="all"), settings, out, quiet=True)

    sitting(tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_log", dies_at(5, Run._log))
        with pytest.raises(Killed):
            sitting(tmp_path / "killed")
    sitting(tmp_path / "killed")
    assert weights(tmp_path / "killed") == weights(tmp_path / "straight")


def test_a_killed_run_of_averaged_weights_ends_with_the_same_bits(data, tmp_path, monkeypatch):
    settings = replace(SETTINGS, average=0.9)
    run(data, tmp_path / "whole", settings=settings)
    killed_at(7, data, tmp_path / "killed", monkeypatch, settings=settings)
    run(data, tmp_path / "killed", settings=settings)
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")
    run(data, tmp_path / "last")
    assert weights(tmp_path / "whole") != weights(tmp_path / "last")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "last")


def test_an_average_forgets_the_beginning_and_gives_the_weights_back():
    policy = torch.nn.Linear(1, 1, bias=False)
    average = Average(policy, 0.99)
    for update in range(1, 1001):
        torch.nn.init.constant_(policy.weight, update)
        average.follow(update)
    with average.shown():
        assert 880 < policy.weight.item() < 920  # a tenth of 1000 updates
    assert policy.weight.item() == 1000


def dies_at(step: int, log):
    """`Run._log` that ends the sitting after so many updates."""

    def dying(self, *arguments):
        if self.step == step:
            raise Killed
        log(self, *arguments)

    return dying


def test_a_line_cut_short_by_the_kill_is_dropped(data, tmp_path, monkeypatch):
    killed_at(7, data, tmp_path, monkeypatch)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "fra')
    run(data, tmp_path)
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, 13))


def test_a_full_disk_at_the_start_of_a_sitting_keeps_the_curve(data, tmp_path, monkeypatch):
    killed_at(7, data, tmp_path, monkeypatch)
    before = metrics(tmp_path)

    def full(self, text, **_):
        self.open("w").close()  # what a full disk leaves of a file that is written anew
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            run(data, tmp_path)
    assert metrics(tmp_path) == before
    run(data, tmp_path)
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, 13))


def test_a_finished_run_is_left_as_it_is(data, tmp_path):
    run(data, tmp_path)
    before, lines = weights(tmp_path), metrics(tmp_path)
    assert run(data, tmp_path)["updates"] == 12
    assert weights(tmp_path) == before
    assert metrics(tmp_path) == lines


def test_a_kill_between_two_renames_of_the_checkpoint(data, tmp_path, monkeypatch):
    killed_at(7, data, tmp_path / "killed", monkeypatch)
    folder = tmp_path / "killed" / "checkpoint"
    folder.rename(folder.with_name("checkpoint.old"))
    run(data, tmp_path / "killed")
    run(data, tmp_path / "straight")
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "straight")
    assert weights(tmp_path / "killed") == weights(tmp_path / "straight")


def test_a_full_disk_keeps_what_was_saved(data, tmp_path, monkeypatch):
    write = checkpoint.write

    def full(policy, design, folder):
        write(policy, design, folder)
        if (folder.parent / "checkpoint").exists():
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", full)
        with pytest.raises(OSError, match="No space left"):
            run(data, tmp_path / "full")
    checkpoint_of = json.loads((tmp_path / "full/checkpoint/training.json").read_text())
    assert checkpoint_of["step"] == 5
    run(data, tmp_path / "full")
    run(data, tmp_path / "straight")
    assert weights(tmp_path / "full") == weights(tmp_path / "straight")


@pytest.mark.parametrize("other", [{"lr": 1e-4}, {"updates": 13}])
def test_a_run_of_other_settings_is_refused(data, tmp_path, other):
    run(data, tmp_path)
    before = weights(tmp_path)
    with pytest.raises(ValueError, match="found a run with other settings; choose another"):
        run(data, tmp_path, settings=replace(SETTINGS, **other))
    assert weights(tmp_path) == before
    assert len(metrics(tmp_path)) == 12


def test_a_run_of_another_design_or_data_is_refused(data, tmp_path):
    run(data, tmp_path)
    for design, about, other in ((Design(m=2, chunk=2), ABOUT, "design"), (DESIGNS["gated"], {"frames": 1}, "data")):
        with pytest.raises(ValueError, match=f"found a run with other {other}; choose"):
            train(fakes.policy(design), design, windows(data), SETTINGS, tmp_path, about, quiet=True)


def test_data_sets_in_another_order_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    one, other = (record(tmp_path / name, first=i) for i, name in enumerate(("one", "other")))
    short = replace(SETTINGS, updates=1, start="scratch")
    fit(Dataset(one, other), SCRATCH, short, tmp_path / "run", quiet=True)
    monkeypatch.setattr("engram.train.make_windows", None)
    with pytest.raises(ValueError, match="found a run with other data; choose"):
        fit(Dataset(other, one), SCRATCH, short, tmp_path / "run", quiet=True)


def test_a_run_that_was_shown_the_data_in_another_order_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr("engram.train.ORDER", 1)
    run(data, tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="found a run with other order; choose"):
        run(data, tmp_path)


def test_the_most_memory_is_kept_over_sittings(data, tmp_path, monkeypatch):
    monkeypatch.setattr("engram.train._peak_gb", lambda: 7.5)
    killed_at(7, data, tmp_path, monkeypatch)
    monkeypatch.undo()
    assert 0 < _peak_gb() < 7.5
    assert run(data, tmp_path)["peak_gb"] == 7.5


def test_other_frozen_weights_than_the_run_began_with_are_refused(data, tmp_path, monkeypatch):
    killed_at(7, data, tmp_path, monkeypatch)
    before = weights(tmp_path)
    other = fakes.policy(DESIGNS["gated"], seed=1)
    with pytest.raises(ValueError, match=r"found others \(trunk.backbone.*\): the shipped weights have changed since"):
        train(other, DESIGNS["gated"], windows(data), SETTINGS, tmp_path, ABOUT, quiet=True)
    assert weights(tmp_path) == before


def test_loader_workers_change_nothing(data, tmp_path):
    run(data, tmp_path / "none")
    run(data, tmp_path / "one", settings=replace(SETTINGS, workers=1))
    assert weights(tmp_path / "one") == weights(tmp_path / "none")
    run(data, tmp_path / "none", settings=replace(SETTINGS, workers=1))  # and a resume may use others


def test_tensorboard_shows_each_line_of_metrics_once(data, tmp_path, monkeypatch):
    shown, settings = tmp_path / "run", replace(SETTINGS, tensorboard=True)
    killed_at(7, data, shown, monkeypatch, settings=settings)  # after it has shown updates 6 and 7, which come again
    run(data, shown, settings=settings)
    run(data, shown, settings=replace(settings, tensorboard=False))  # of no weight: it is the same run
    board = EventAccumulator(str(shown / "tensorboard")).Reload()
    lines = metrics(shown)
    assert {"loss", "lr", "grad_norm", "clipped", "frames"} <= set(board.Tags()["scalars"])
    for name in ("loss", "lr"):
        points = [(event.step, event.value) for event in board.Scalars(name)]
        assert points == [(line["step"], pytest.approx(line[name])) for line in lines]


def test_without_tensorboard_training_goes_on(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run(data, tmp_path / "without", settings=replace(SETTINGS, tensorboard=True))
    assert capsys.readouterr().err.count("TensorBoard is not installed") == 1
    assert not (tmp_path / "without/tensorboard").exists()
    run(data, tmp_path / "straight")
    assert weights(tmp_path / "without") == weights(tmp_path / "straight")


def test_what_frozen_parts_hold_does_not_move(data, tmp_path):
    policy = fakes.policy(DESIGNS["gated"])
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    train(policy, DESIGNS["gated"], windows(data), SETTINGS, tmp_path, ABOUT, quiet=True)
    still = {key for key, value in policy.state_dict().items() if torch.equal(value, before[key])}
    frozen = {key for key, value in policy.named_parameters() if not value.requires_grad}
    buffers = {key for key, _ in policy.named_buffers()}
    assert frozen <= still
    assert still <= frozen | buffers | {"trunk.backbone.question"}  # asked in pretraining alone


def test_the_schedule_of_the_learning_rate_and_the_counters(data, tmp_path):
    summary = run(data, tmp_path)
    rates = [line["lr"] for line in metrics(tmp_path)]
    assert rates[0] == pytest.approx(SETTINGS.lr / 3)
    assert max(rates) == rates[2]
    assert sorted(rates[2:], reverse=True) == rates[2:]
    assert rates[-1] == pytest.approx(0.1 * SETTINGS.lr, rel=0.2)
    shown = sum(int(windows(data)[step].valid.sum()) for step in range(12))
    assert summary["frames"] == shown == metrics(tmp_path)[-1]["frames"]
    assert all(0 <= line["clipped"] <= 1 for line in metrics(tmp_path))


def recall(root: Path) -> Path:
    """Four episodes of four ticks: a colour at the first, then black; the action to take is that of the colour."""
    spec, length = fakes.SPEC, 4
    with Writer(root, spec) as writer:
        for number in range(4):
            sign = 1 - 2 * (number % 2)
            images = {camera: np.zeros((length, spec.height, spec.width, 3), np.uint8) for camera in spec.cameras}
            for pixels in images.values():
                pixels[0] = (220, 20, 20) if sign > 0 else (20, 20, 220)
            action = np.full((length, spec.action_dim), 0.8 * sign, np.float32)
            zeros = np.zeros_like(action)
            writer.add_episode(images, np.zeros((length, spec.proprio_dim), np.float32), action, zeros, "recall")
    return root


def test_memory_learns_what_no_single_frame_tells(tmp_path):
    """Ticks 1-3 look alike in all episodes: without memory nothing better than zero can be said there."""
    data = Dataset(recall(tmp_path / "demos"))
    settings = Settings(updates=45, slots=4, lr=1e-2, warmup=5, save=45, log=5, tensorboard=False)
    losses = {}
    for name, design in {
        "none": Design(m=0),
        "gated": Design(m=2),
        "first-frame": Design(memory="first-frame"),
    }.items():
        design = replace(design, chunk=1, trained="all", loss="l2")
        policy = fakes.policy(design)
        train(policy, design, windows(data, settings, 1), settings, tmp_path / name, {}, quiet=True)
        losses[name] = metrics(tmp_path / name)
    assert losses["none"][-1]["loss"] == pytest.approx(0.75 * 0.64, rel=0.1)
    for name in ("gated", "first-frame"):
        assert losses[name][-1]["loss"] < 0.02 < losses[name][0]["loss"]


def test_fit_makes_all_of_it_from_a_data_set(data, tmp_path):
    design = Design(m=2, chunk=2, trained="all")
    settings = replace(SETTINGS, updates=3, start="scratch")
    summary = fit(data, design, settings, tmp_path, quiet=True)
    assert summary["updates"] == 3
    policy, found = checkpoint.load(tmp_path / "checkpoint")
    assert found == design
    assert policy.spec == data.spec
    np.testing.assert_allclose(policy.head.action.mean, data.action.mean(0), atol=1e-5)
    np.testing.assert_allclose(policy.trunk.backbone.proprio_mean, data.state.mean(0), atol=1e-5)


def test_training_goes_on_from_a_checkpoint_with_other_weights_to_learn(data, tmp_path):
    design = Design(m=2, chunk=2, trained="all")
    fit(data, design, replace(SETTINGS, updates=1, start="scratch"), tmp_path / "first", quiet=True)
    start = str(tmp_path / "first" / "checkpoint")
    before, _ = checkpoint.load(start)
    onward = new_policy(data, replace(design, trained="slots", tbptt=1), replace(SETTINGS, start=start))
    for name, value in before.state_dict().items():
        assert torch.equal(value, onward.state_dict()[name])
    assert not onward.trunk.backbone.vision.body[0].weight.requires_grad
    fit(data, replace(design, trained="slots"), replace(SETTINGS, start=start), tmp_path / "second", quiet=True)
    after, _ = checkpoint.load(tmp_path / "second" / "checkpoint")
    assert torch.equal(before.memory.standard.centre, after.memory.standard.centre)  # what was measured stays
    assert not torch.equal(before.head.expert.slots, after.head.expert.slots)


def test_a_checkpoint_of_another_shape_is_no_start(data, tmp_path):
    design = Design(m=2, chunk=2, trained="all")
    fit(data, design, replace(SETTINGS, updates=1, start="scratch"), tmp_path, quiet=True)
    with pytest.raises(ValueError, match=r"start .*checkpoint: expected its m, chunk, found others; train on from an"):
        new_policy(data, replace(design, m=3, chunk=4), replace(SETTINGS, start=str(tmp_path / "checkpoint")))
    with pytest.raises(ValueError, match="expected a checkpoint folder with config.json, found none"):
        new_policy(data, Design(), replace(SETTINGS, start=str(tmp_path / "nothing")))


def test_what_takes_long_before_the_first_update_shows_a_bar(tmp_path, capsys):
    data = Dataset(record(tmp_path / "demos", LENGTHS, fakes.SPEC))  # not decoded yet
    design, settings = Design(m=2, chunk=2, trained="all"), replace(SETTINGS, updates=1, start="scratch")
    fit(data, design, settings, tmp_path / "run")
    frames = 2 * sum(LENGTHS)
    assert re.search(rf"videos .* {frames}/{frames}", capsys.readouterr().err)


def test_what_cannot_be_trained_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="updates: expected at least 1, found 0"):
        Settings(updates=0)
    with pytest.raises(ValueError, match="size m: expected 's'"):
        new_policy(data, Design(size="m"), SETTINGS)
    with pytest.raises(ValueError, match="trained slots: expected 'all'"):
        new_policy(data, Design(), replace(SETTINGS, start="scratch"))
    with pytest.raises(ValueError, match=r"notes: expected pretrained weights, found a start from scratch"):
        new_policy(data, Design(notes=True, trained="all"), replace(SETTINGS, start="scratch"))
    assert not list(tmp_path.iterdir())


def test_words_and_windows_that_do_not_exist_are_refused_with_those_that_do():
    # In a process of its own: here the type checks of the tests would be first.
    code = """
from engram.settings import Settings
for wrong in ({"loader": "shufled"}, {"start": "scrach"}, {"ticks": "episodes"}):
    try:
        Settings(**wrong)
    except ValueError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        "loader: expected one of episodic, group, shuffled, found 'shufled'; choose such a value",
        "start: expected pretrained, scratch or a checkpoint's folder (./A), found 'scrach'; choose such a value",
        "ticks: expected at least 1, or 'episode', found 'episodes'; choose such a value",
    ]


def test_windows_hold_whole_pieces_of_k(data, tmp_path):
    """A window of 3 ticks with K = 2 would be learned as K = 2, 1, 2, 1 ..., one with K = 9 as K = 3."""
    design = Design(m=2, chunk=2, trained="all", tbptt=2)
    for k in (2, 9):
        with pytest.raises(ValueError, match=rf"expected a divisor of the window .*ticks 3.*, found {k}; change one"):
            fit(data, replace(design, tbptt=k), replace(SETTINGS, start="scratch"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    for ticks, k in ((2, 2), (4, 2), ("episode", 2), (3, None)):
        require_whole_windows(replace(design, tbptt=k), replace(SETTINGS, ticks=ticks))


def test_a_memory_that_is_shown_independent_frames_is_refused(data, tmp_path):
    settings = replace(SETTINGS, updates=1, loader="shuffled", start="scratch")
    fit(data, Design(m=0, chunk=2, trained="all"), settings, tmp_path / "memoryless", quiet=True)
    with pytest.raises(ValueError, match="expected 'episodic' for a policy with a memory, found 'shuffled'"):
        fit(data, Design(m=2, chunk=2, trained="all"), settings, tmp_path / "memory", quiet=True)


def test_the_published_choices():
    design, settings = published(Design(), Settings())
    assert (design.m, design.rule, design.tbptt, design.mask) == (64, "plain", 2, "full")
    assert (design.initial_std, design.read_scale, design.chunk, design.loss) == (0.02, 1.0, 8, "l1")
    assert not design.standardise
    assert settings.ticks == design.tbptt
    kept = published(Design(m=64, tbptt=2, replan=4), Settings(lr=5e-4))
    assert kept == (replace(design, replan=4), replace(settings, lr=5e-4))
    assert published(Design(), Settings(start="scratch"))[0].trained == "all"


@pytest.mark.parametrize("k", [1, 2, 8])
@pytest.mark.parametrize("m", [0, 1, 64])
def test_the_published_coupling_for_what_the_paper_varies(k, m):
    design, settings = published(Design(m=m, tbptt=k), Settings())
    assert (design.m, design.tbptt, settings.ticks, design.mask) == (m, k, k, "full")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            (Design(chunk=3), Settings()),
            "--design.chunk: expected 8, the published value, found 3; leave --design.chunk or --preset out",
        ),
        ((Design(trained="all"), Settings()), "--design.trained: expected language, the published value, found all"),
        ((Design(), Settings(ticks=16)), "--settings.ticks: expected 2, the published value, found 16"),
    ],
)
def test_what_was_asked_for_is_not_silently_replaced_by_the_published_choice(given, said):
    with pytest.raises(ValueError, match=said):
        published(*given)
