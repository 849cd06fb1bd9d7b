"""Evaluation: what is played, counted, kept and refused; and what a changed memory does to the outcome."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import fakes
import pytest
import torch
from doubles import SPEC, BlindPolicy, CuePolicy
from game import RecallGame, make

from engram.carry import Carry
from engram.policies.design import BankDesign, Design
from engram.rollout import CounterError, EpisodeError, compare, evaluate, film, interventions, summarise
from engram.rollout.interventions import Donor, Moment
from engram.rollout.records import donors, fingerprint, read
from engram.types import Observation

SEEDS = range(60)
SITTING = {"seconds": 0, "simulator_share": None}  # differ from sitting to sitting


def run(policy, out: Path, seeds=SEEDS, workers=0, **options) -> dict:
    options = {"make": make, "policy_name": "double", "progress": False, "workers": workers, "lanes": 8} | options
    return evaluate(policy, "game", seeds, out, **options)


def test_a_policy_that_remembers_always_succeeds(tmp_path):
    summary = run(CuePolicy(replan=2), tmp_path / "plain.jsonl")
    assert (summary["episodes"], summary["success"], summary["errors"]) == (60, 1.0, 0)
    assert summary["ci95"][0] > 0.9
    lines = read(tmp_path / "plain.jsonl")
    assert [line["seed"] for line in lines] == list(SEEDS)
    for line in lines:
        ticks = line["onset"] + 2
        assert line["ticks"] == ticks
        assert line["counters"] == {"observations": ticks, "plans": -(-ticks // 2), "writes": ticks, "renders": ticks}
        assert (line["return"], line["cue_end"]) == (1.0, 3)
        assert [drift > 0 for drift in line["drift"]] == [True] + [False] * (ticks - 1)  # the cue, seen once


def test_a_policy_without_memory_is_at_chance(tmp_path):
    summary = run(BlindPolicy(), tmp_path / "blind.jsonl")
    assert summary["ci95"][0] < 1 / 3 < summary["ci95"][1]
    assert summary["counters"]["writes"] == 0


def test_two_policies_are_compared_on_the_same_episodes(tmp_path):
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    run(CuePolicy(), ours, seeds=range(30))
    blind = run(BlindPolicy(), theirs, seeds=range(10, 50))
    found = compare(ours, theirs)
    solved = sum(line["success"] for line in read(theirs) if line["seed"] < 30)
    assert found["episodes"] == 20
    assert (found["ours_only"], found["theirs_only"], found["difference"]) == (20 - solved, 0, 1 - solved / 20)
    assert found["p"] == pytest.approx(2 / 2 ** (20 - solved))
    assert blind["episodes"] == 40
    run(CuePolicy(), tmp_path / "later.jsonl", seeds=range(60, 62))
    with pytest.raises(ValueError, match="0 common seeds"):
        compare(ours, tmp_path / "later.jsonl")
    beside = theirs.with_suffix(".settings.json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"knobs": {"delay_ticks": 50}}))
    with pytest.raises(ValueError, match="the same knobs of the environment, found {} and {'delay_ticks': 50}"):
        compare(ours, theirs)


@pytest.mark.parametrize("change", [interventions.zero(), interventions.noise(), interventions.reset()])
def test_without_its_memory_it_is_at_chance(tmp_path, change):
    summary = run(CuePolicy(), tmp_path / "changed.jsonl", intervention=change)
    assert summary["ci95"][0] < 1 / 3 < summary["ci95"][1]
    assert summary["intervention"] == change.name


def test_the_tick_of_an_intervention_decides(tmp_path):
    cue_over = run(CuePolicy(), tmp_path / "late.jsonl", intervention=interventions.freeze(at=3))
    cue_seen_again = run(CuePolicy(), tmp_path / "early.jsonl", intervention=interventions.reset(at=2))
    assert (cue_over["success"], cue_seen_again["success"]) == (1.0, 1.0)
    assert cue_over["intervention"] == "freeze@3"


@pytest.mark.parametrize("change", [interventions.zero(), interventions.freeze(at=3), interventions.reset(at=2)])
def test_every_tick_under_an_intervention_is_counted(tmp_path, change):
    run(CuePolicy(), tmp_path / "changed.jsonl", seeds=range(6), intervention=change)
    run(CuePolicy(), tmp_path / "plain.jsonl", seeds=range(6))
    for line in read(tmp_path / "changed.jsonl"):
        assert line["intervened"] == line["ticks"] - (change.at or line["onset"])
    assert {line["intervened"] for line in read(tmp_path / "plain.jsonl")} == {0}


def test_an_intervention_that_comes_too_late_is_refused_and_not_an_outcome(tmp_path):
    run(CuePolicy(), tmp_path / "plain.jsonl", seeds=[0])
    (plain,) = read(tmp_path / "plain.jsonl")
    last, over = plain["ticks"] - 1, plain["ticks"]
    run(CuePolicy(), tmp_path / "last.jsonl", seeds=[0], intervention=interventions.zero(last))
    assert [line["intervened"] for line in read(tmp_path / "last.jsonl")] == [1]
    said = f"seed 0: expected it to last beyond tick {over}, at which zero@{over} begins, found it over after {over};"
    with pytest.raises(ValueError, match=said):
        run(CuePolicy(), tmp_path / "late.jsonl", seeds=[0], intervention=interventions.zero(over))
    assert read(tmp_path / "late.jsonl") == []


def test_an_intervention_may_begin_when_the_cue_ends(tmp_path):
    run(CuePolicy(), tmp_path / "frozen.jsonl", intervention=interventions.freeze("cue"))
    for line in read(tmp_path / "frozen.jsonl"):
        assert (line["intervention"], line["intervened"]) == ("freeze@cue", line["ticks"] - line["cue_end"])
    run(CuePolicy(), tmp_path / "zero.jsonl", intervention=interventions.zero("cue"))
    assert sum(line["success"] for line in read(tmp_path / "zero.jsonl")) < 30


def test_where_no_cue_is_shown_none_ends(tmp_path):
    with pytest.raises(ValueError, match="seed 0: expected a cue, at whose end zero@cue begins, found none"):
        run(CuePolicy(), tmp_path / "none.jsonl", seeds=[0], intervention=interventions.zero("cue"), knobs={"cue": 0})


def test_before_the_first_tick_there_is_nothing_to_forget():
    with pytest.raises(ValueError, match="reset: expected memory to forget, found a choice from the first tick on"):
        interventions.reset().require_something(0)
    interventions.noise().require_something(0)  # from the first tick on at every tick: memory is noise throughout


def test_memories_may_be_exchanged_at_a_tick(tmp_path):
    run(CuePolicy(), tmp_path / "plain.jsonl", keep_onset=True, kept_at=2)
    given = donors(tmp_path / "plain.jsonl")
    summary = run(CuePolicy(), tmp_path / "swap.jsonl", intervention=interventions.swap(given, 2))
    assert all(line["intervened"] == line["ticks"] - 2 for line in read(tmp_path / "swap.jsonl"))
    assert summary["success"] == 1.0  # the cue is still there to be seen
    late = tmp_path / "late.jsonl"
    run(CuePolicy(), late, keep_onset=True, kept_at=3)
    assert run(CuePolicy(), tmp_path / "at3.jsonl", intervention=interventions.swap(donors(late), 3))["success"] == 0.0


def test_after_a_swap_the_donor_is_followed(tmp_path):
    run(CuePolicy(), tmp_path / "plain.jsonl", keep_onset=True)
    swap = interventions.swap(donors(tmp_path / "plain.jsonl"))
    summary = run(CuePolicy(), tmp_path / "swap.jsonl", intervention=swap)
    assert (summary["donor_choice"], summary["success"]) == (1.0, 0.0)
    assert all(line["donor_answer"] != line["answer"] for line in read(tmp_path / "swap.jsonl"))


def test_a_swap_without_a_donor_is_refused_before_it_is_played(tmp_path):
    run(CuePolicy(), tmp_path / "plain.jsonl", seeds=range(6), keep_onset=True)
    swap = interventions.swap(donors(tmp_path / "plain.jsonl"))
    with pytest.raises(ValueError, match=r"a donor for each of 8 episodes, found none for seed 6 \(of 2\)"):
        run(CuePolicy(), tmp_path / "swap.jsonl", seeds=range(8), intervention=swap)
    assert not (tmp_path / "swap.jsonl").exists()


def test_a_policy_without_memory_cannot_be_intervened_on(tmp_path):
    with pytest.raises(ValueError, match="zero: expected a policy with memory/ entries"):
        run(BlindPolicy(), tmp_path / "blind.jsonl", intervention=interventions.zero())


def moment(tick: int, held: Carry) -> Moment:
    given = {key: value + 7 for key, value in held.items()}
    start = {key: 0 * value for key, value in held.items()}
    return Moment(seed=5, tick=tick, at=4, start=start, held=held, donor=Donor(6, "red", given))


def test_interventions_are_what_they_say():
    held = {"memory/x": torch.full((1, 64, 64), 2.0), "memory/n": torch.tensor([3])}
    now = {"memory/x": torch.randn(1, 64, 64) * 5 + 1, "memory/n": torch.tensor([4])}
    first, later = moment(4, held), moment(6, held)
    zeroed, noisy = (change.change(now, later) for change in (interventions.zero(), interventions.noise()))
    assert zeroed["memory/x"].abs().max() == 0
    assert noisy["memory/x"].std() == pytest.approx(5.0, rel=0.05)
    assert noisy["memory/x"].mean().abs() < 0.5
    assert torch.equal(noisy["memory/x"], interventions.noise().change(now, later)["memory/x"])
    assert zeroed["memory/n"] == noisy["memory/n"] == now["memory/n"]
    assert interventions.freeze().change(now, later) is held
    assert interventions.reset().change(now, first)["memory/n"] == 0
    assert interventions.reset().change(now, later) is now
    assert interventions.swap({}).change(now, first)["memory/n"] == 10
    assert interventions.swap({}).change(now, later) is now


def test_lanes_and_workers_change_nothing(tmp_path):
    plain = {"replan": 3}
    for name, options in {"one": {"lanes": 1}, "four": {"lanes": 4}, "spawned": {"lanes": 5, "workers": 2}}.items():
        run(CuePolicy(**plain), tmp_path / f"{name}.jsonl", seeds=range(11), **options)
    one, four, spawned = (read(tmp_path / f"{name}.jsonl") for name in ("one", "four", "spawned"))
    assert one == four == spawned


class Killed(BaseException):
    """Stands for a signal."""


class Mortal(CuePolicy):
    """Dies at its twentieth observation of a run."""

    lives = 20

    def observe(self, carry: Carry, obs: Observation, first_B: torch.Tensor) -> Carry:
        type(self).lives -= 1
        if self.lives == 0:
            raise Killed
        return super().observe(carry, obs, first_B)


def test_a_killed_run_goes_on_to_the_same_episodes(tmp_path):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    with pytest.raises(Killed):
        run(Mortal(), cut)
    with cut.open("a") as file:
        file.write('{"policy": "double", "ta')  # the line it was writing
    before = len(read(cut))
    assert 0 < before < len(SEEDS)
    summary, again = run(Mortal(), whole), run(Mortal(), cut)
    assert read(cut) == read(whole)
    assert {**summary, **SITTING} == {**again, **SITTING}


def test_a_finished_run_is_not_played_again_and_more_seeds_are_added(tmp_path):
    out = tmp_path / "plain.jsonl"
    run(CuePolicy(), out, seeds=range(4))
    before = out.read_bytes()
    run(CuePolicy(), out, seeds=range(4))
    assert out.read_bytes() == before
    assert run(CuePolicy(), out, seeds=range(2, 7))["episodes"] == 5
    assert [line["seed"] for line in read(out)] == list(range(7))


def test_a_file_of_another_setting_is_refused_and_kept(tmp_path):
    out, other = tmp_path / "plain.jsonl", CuePolicy()
    other.scale.data.fill_(2)
    run(CuePolicy(), out, seeds=[0])
    before = out.read_bytes()
    with pytest.raises(ValueError, match="another setting: expected policy_sha256"):
        run(other, out, seeds=[1])
    with pytest.raises(ValueError, match=r"expected knobs \{'delay': 9\}, found \{\}"):
        run(CuePolicy(), out, seeds=[1], knobs={"delay": 9})
    with pytest.raises(ValueError, match="expected intervention 'zero', found None"):
        run(CuePolicy(), out, seeds=[1], intervention=interventions.zero())
    assert out.read_bytes() == before


def test_results_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "plain.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"expected its settings in .*plain\.settings\.json"):
        run(CuePolicy(), tmp_path / "plain.jsonl")


def test_a_damaged_line_is_named(tmp_path):
    run(CuePolicy(), tmp_path / "plain.jsonl", seeds=[0])
    with (tmp_path / "plain.jsonl").open("a") as file:
        file.write("{'seed'\n")
    with pytest.raises(ValueError, match=r"plain\.jsonl:2: expected an episode as JSON"):
        run(CuePolicy(), tmp_path / "plain.jsonl", seeds=[0, 1])


@pytest.mark.parametrize(("lanes", "workers"), [(1, 0), (4, 0), (4, 2)])
def test_a_failing_environment_is_an_error_and_never_an_outcome(tmp_path, lanes, workers):
    out = tmp_path / "plain.jsonl"
    with pytest.raises(EpisodeError, match=r"2 of 10 episodes ended in an error .*\n(.|\n)*seed 3: (.|\n)*exploded"):
        run(CuePolicy(), out, seeds=range(10), lanes=lanes, workers=workers, knobs={"fails_on": (3, 7)})
    lines = read(out)
    assert [line["seed"] for line in lines if line["error"]] == [3, 7]
    assert [line["success"] for line in lines if line["error"]] == [None, None]
    summary = summarise(lines)
    assert (summary["episodes"], summary["successes"], summary["errors"]) == (8, 8, 2)


def test_a_dead_worker_is_an_error_that_keeps_the_episodes_before_it(tmp_path):
    out = tmp_path / "plain.jsonl"
    with pytest.raises(EpisodeError, match="its process ended"):
        run(CuePolicy(), out, seeds=range(6), lanes=2, workers=2, knobs={"dies_on": 5})
    lines = read(out)
    assert any(line["error"] for line in lines)
    assert all(line["success"] is None for line in lines if line["error"])
    assert sum(line["success"] is True for line in lines) >= 3


def test_errors_are_tried_again(tmp_path):
    out = tmp_path / "plain.jsonl"
    with pytest.raises(EpisodeError):
        run(CuePolicy(), out, seeds=range(4), knobs={"fails_on": (3,)})
    with pytest.raises(EpisodeError):
        run(CuePolicy(), out, seeds=range(4), knobs={"fails_on": (3,)})
    assert [line["seed"] for line in read(out)] == [0, 1, 2, 3]


def test_a_broken_environment_is_given_up_early(tmp_path):
    out = tmp_path / "plain.jsonl"
    with pytest.raises(EpisodeError):
        run(CuePolicy(), out, knobs={"fails_on": tuple(SEEDS)})
    assert len(read(out)) < 10


def test_an_observation_that_was_not_rendered_fails_the_run(tmp_path):
    with pytest.raises(CounterError, match="seed 0: expected .*'renders': .* found"):
        run(CuePolicy(), tmp_path / "plain.jsonl", seeds=[0], knobs={"skips_frames": True})


class Stuck(CuePolicy):
    """Asks for writes that store nothing."""

    def observe(self, carry: Carry, obs: Observation, first_B: torch.Tensor) -> Carry:
        return {**super().observe(carry, obs, first_B), **{key: carry[key] for key in carry if "memory/" in key}}


def test_a_policy_that_skips_writes_fails_the_run(tmp_path, monkeypatch):
    policy = fakes.policy(Design(m=2), spec=SPEC)
    run(policy, tmp_path / "whole.jsonl", seeds=[0])
    write = policy._write
    monkeypatch.setattr(policy, "_write", lambda carry, x, tick, mask: write(carry, x, tick, mask & (tick == 0)))
    with pytest.raises(CounterError, match="seed 0: expected .*'writes': .* found .*'writes': 1"):
        run(policy, tmp_path / "skips.jsonl", seeds=[0])


@pytest.mark.parametrize(("rule", "few"), [({"every": 3}, True), ({"when": "keyframes"}, False)])
def test_writes_are_as_many_as_the_rule_of_the_policy_asks_for(tmp_path, monkeypatch, rule, few):
    policy = fakes.policy(Design(memory="bank", bank=BankDesign(capacity=2, steps=1, **rule)), spec=SPEC)
    counters = run(policy, tmp_path / "ruled.jsonl", seeds=[0, 1])["counters"]
    ticks = [line["ticks"] for line in read(tmp_path / "ruled.jsonl")]
    assert 2 <= counters["writes"] <= counters["observations"] == sum(ticks)
    assert not few or counters["writes"] == sum(-(-t // 3) for t in ticks)
    monkeypatch.setattr(policy, "writes", lambda ticks: range(ticks + 1, ticks + 2))
    with pytest.raises(CounterError, match="seed 0: expected .*'writes': .* found"):
        run(policy, tmp_path / "other.jsonl", seeds=[0])


def test_a_rule_or_a_way_of_reading_that_no_tensor_shows_makes_another_policy():
    banks = ({}, {"every": 2}, {"when": "keyframes"}, {"heads": 2}, {"merge": "fifo"}, {"guidance": 1.0}, {"steps": 3})
    made = [fakes.policy(Design(memory="bank", bank=BankDesign(capacity=2, **bank)), spec=SPEC) for bank in banks]
    assert len({fingerprint(policy) for policy in made}) == len(banks)


def test_a_memory_that_never_moves_fails_the_run(tmp_path):
    with pytest.raises(CounterError, match="expected memory to move"):
        run(Stuck(), tmp_path / "plain.jsonl", seeds=[0])


def test_the_policy_is_bit_equal_after_an_evaluation(tmp_path):
    policy = CuePolicy().train()
    before, attributes = fingerprint(policy), set(vars(policy))
    run(policy, tmp_path / "plain.jsonl", seeds=range(5))
    assert fingerprint(policy) == before
    assert set(vars(policy)) == attributes
    assert policy.training


@pytest.mark.parametrize(
    "change", [{"rule": 0.1}, {"mask": "full"}, {"replan": 2}, {"m": 3}, {"carried": False}, {"read_scale": 2.0}]
)
def test_a_fingerprint_tells_designs_apart(change):
    """Rule, mask and cadence are in no tensor: the same weights behave in another way."""
    plain = Design(m=2, rule="plain")
    ours, same, other = (fakes.policy(design) for design in (plain, plain, replace(plain, **change)))
    assert fingerprint(ours) == fingerprint(same) != fingerprint(other)


def test_a_fingerprint_tells_cameras_apart():
    ours, other = (
        fakes.policy(Design(), spec=replace(fakes.SPEC, cameras=names)) for names in (("a", "b"), ("b", "a"))
    )
    assert fingerprint(ours) != fingerprint(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": ("base", "left")}, r"expected cameras \('base', 'left'\), found \('base',\)"),
        ({"height": 64}, "expected height 64, found 12"),
        ({"proprio_dim": 8}, "expected proprio_dim 8, found 7"),
        ({"control_hz": 10.0}, "expected control_hz 10.0, found 20.0"),
    ],
)
def test_an_environment_that_does_not_fit_the_policy_is_refused(tmp_path, change, message):
    policy = CuePolicy()
    policy.spec = replace(policy.spec, **change)
    with pytest.raises(ValueError, match=f"environment game: {message}"):
        run(policy, tmp_path / "plain.jsonl")


def test_cameras_that_are_switched_off_are_noticed_before_the_first_file(tmp_path):
    class Dark(RecallGame):
        def reset(self, **options):
            frame, info = super().reset(**options)
            return frame, info | {"frames": 0}

    with pytest.raises(ValueError, match="environment game: expected camera images, found none"):
        run(CuePolicy(), tmp_path / "dark.jsonl", make=lambda task: Dark())
    assert not (tmp_path / "dark.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, "seeds: expected at least one episode, found none"),
        ({"seeds": range(-3, 3)}, "seeds: expected 0 or more, found -3"),
        ({"seeds": [2**32]}, "seeds: expected less than 4294967296, found 4294967296"),
        ({"lanes": 0}, "lanes: expected 1 or more, found 0"),
        ({"workers": -1}, "workers: expected 0 or more, found -1"),
        ({"video_first": -1}, "videos: expected 0 or more, found -1"),
    ],
)
def test_what_cannot_be_played_is_refused_before_the_first_file(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(CuePolicy(), tmp_path / "plain.jsonl", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_film_has_a_frame_for_the_reset_and_every_tick(tmp_path):
    record = film(CuePolicy(), make, 3, tmp_path / "films" / "3.mp4")
    with av.open(str(tmp_path / "films" / "3.mp4")) as file:
        stream = file.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert len(frames) == record["ticks"] + 1
    assert frames[0].shape == (48, 48, 3)


def test_half_an_episode_is_not_filmed(tmp_path):
    with pytest.raises(EpisodeError, match=r"seed 3: expected a whole episode to film, found (.|\n)*exploded"):
        film(CuePolicy(), partial(make, fails_on=(3,)), 3, tmp_path / "3.mp4")
    assert not (tmp_path / "3.mp4").exists()


def test_the_first_seeds_are_filmed_beside_the_results(tmp_path):
    run(CuePolicy(), tmp_path / "plain.jsonl", seeds=range(4, 8), video_first=2)
    assert sorted(path.name for path in (tmp_path / "plain.video").iterdir()) == ["4.mp4", "5.mp4"]


def test_a_film_of_another_outcome_than_the_evaluated_one_is_not_kept(tmp_path):
    run(CuePolicy(), tmp_path / "plain.jsonl", seeds=[3])
    (evaluated,) = read(tmp_path / "plain.jsonl")
    film(CuePolicy(), make, 3, tmp_path / "3.mp4", evaluated=evaluated)
    (tmp_path / "3.mp4").unlink()
    assert not film(CuePolicy(), make, 3, tmp_path / "3.mp4", interventions.reset(), evaluated)["success"]
    assert not (tmp_path / "3.mp4").exists()


def test_films_and_memories_belong_to_the_results_beside_them(tmp_path):
    """They are made once; when the results are removed and made anew, so are they."""
    out = tmp_path / "plain.jsonl"
    run(CuePolicy(), out, seeds=range(2), video_first=1, keep_onset=True)
    kept = tmp_path / "plain.video" / "0.mp4"
    kept.write_bytes(b"of these results")
    run(CuePolicy(), out, seeds=range(3), video_first=2, keep_onset=True)
    assert kept.read_bytes() == b"of these results"
    out.unlink()
    run(CuePolicy(replan=2), out, seeds=range(1), video_first=1, keep_onset=True)
    assert kept.read_bytes() != b"of these results"
    names = {path.name for folder in ("plain.video", "plain.onset") for path in (tmp_path / folder).iterdir()}
    assert names == {"0.mp4", "0.safetensors"}


def test_lines_are_plain_json(tmp_path):
    run(CuePolicy(), tmp_path / "plain.jsonl", seeds=[1])
    (line,) = (tmp_path / "plain.jsonl").read_text().splitlines()
    assert {"task", "seed", "policy", "intervention", "success", "choice", "answer", "drift"} <= json.loads(line).keys()


def test_a_simulator_that_dies_is_started_again_and_its_episode_too(tmp_path, capfd):
    run(CuePolicy(), tmp_path / "whole.jsonl", seeds=range(8), workers=2, lanes=4)
    knobs = {"dies_on": 5, "grave": str(tmp_path / "grave")}
    summary = run(CuePolicy(), tmp_path / "killed.jsonl", seeds=range(8), workers=2, lanes=4, knobs=knobs)
    assert (summary["episodes"], summary["errors"]) == (8, 0)
    whole, killed = (read(tmp_path / f"{name}.jsonl") for name in ("whole", "killed"))
    assert killed[5]["deaths"] == 1
    assert sum(line["deaths"] for line in killed) <= 2  # of the other episode of that process
    assert [line | {"deaths": 0} for line in killed] == whole
    assert "its process ended without a word (exit code -9); started again" in capfd.readouterr().err


def test_a_simulator_that_always_dies_costs_its_episode_alone(tmp_path):
    with pytest.raises(
        EpisodeError, match=r"1 of 4 episodes ended in an error(.|\n)*seed 2: .*failed:\nits process ended"
    ):
        run(CuePolicy(), tmp_path / "killed.jsonl", seeds=range(4), workers=1, lanes=3, knobs={"dies_on": 2})
    assert [line["seed"] for line in read(tmp_path / "killed.jsonl") if line["error"] is None] == [0, 1, 3]


def test_where_nothing_is_chosen_no_share_follows_a_donor(tmp_path):
    run(CuePolicy(), tmp_path / "plain.jsonl", keep_onset=True)
    run(CuePolicy(), tmp_path / "swap.jsonl", intervention=interventions.swap(donors(tmp_path / "plain.jsonl")))
    unchosen = [line | {"choice": None} for line in read(tmp_path / "swap.jsonl")]
    assert summarise(unchosen)["donor_choice"] is None
