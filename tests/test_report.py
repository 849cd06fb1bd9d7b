"""The report: every part of a synthetic run reaches the page, missing parts are said, broken files are named."""

import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engram import provenance, report
from engram.data.seeds import TEST, VALIDATION
from engram.policies.design import Design
from engram.policies.published import DESIGN
from engram.report import page, plots, video, words
from engram.report.run import read
from engram.rollout import video as rollout_video

POLICIES = {"memoryless": 0.345, "mu_vla": 0.965}
COLOURS = ("red", "green", "blue")


def wilson(rate: float, n: int) -> dict:
    """A result as evaluation writes it."""
    z = 1.96
    middle, half = (
        (rate + z * z / (2 * n)) / (1 + z * z / n),
        z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)),
    )
    half /= 1 + z * z / n
    return {"success": rate, "episodes": n, "successes": round(rate * n), "ci95": [middle - half, middle + half]}


def summary() -> dict:
    """A complete summary.json."""
    delays = [5, 10, 20, 50, 100]
    return {
        "task": "recall-color-3",
        "chance": 0.329,
        "chance_measured": wilson(0.329, 1000),
        "policies": {name: wilson(rate, 200) for name, rate in POLICIES.items()},
        "interventions": {
            "swap": wilson(0.31, 200) | {"donor_choice": 0.925},
            "zero": wilson(0.34, 200),
            "noise": wilson(0.355, 200),
            "freeze": wilson(0.96, 200),
            "reset": wilson(0.33, 200),
        },
        "visible": {"memoryless": wilson(0.985, 200), "mu_vla": wilson(0.98, 200)},
        "delay_curve": [
            {"policy": name, "delay": d} | wilson(rate if name == "memoryless" else rate - d / 1000, 200)
            for name, rate in POLICIES.items()
            for d in delays
        ],
        "trained_delay": [5, 20],
        "paired": {"a": "mu_vla", "b": "memoryless", "p_value": 3.1e-29, "only_a": 126, "only_b": 2},
        "train_seconds": 801.5,
        "training": {name: {"train_seconds": 400.75} for name in POLICIES},
        "configuration": {"designs": {"mu_vla": asdict(Design(m=8)), "memoryless": asdict(Design(m=0))}, "demos": 500},
        "wall_seconds": 611.0,
        "frames_per_second_train": 912.4,
        "commit": "0123456789abcdef0123456789abcdef01234567-dirty",
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "machine": {"processor": "a processor", "cores": 2, "memory_gb": 8.0},
        "seeds": {"train": [0, 399], "validation": [500_000, 500_099], "test": [1_000_000, 1_000_199]},
        "notes": {"privileged labels": "pretraining used object positions & colours of <single> frames, seeds 2e9 up"},
    }


def episode(policy: str, intervention: str | None, seed: int, rng: np.random.Generator) -> dict:
    """One line of an evaluation file."""
    onset = 8 + int(rng.integers(5, 20))
    ticks = onset + 14
    still = np.where((np.arange(ticks) < 8) | (np.arange(ticks) >= onset), 0.12, 0.015)
    drift = still * rng.lognormal(0, 0.4, ticks) if policy == "mu_vla" else np.zeros(ticks)
    return {
        "task": "recall-color-3", "seed": seed, "policy": policy, "intervention": intervention,
        "success": bool(rng.random() < POLICIES[policy]), "choice": "red", "answer": "red", "donor_answer": None,
        "ticks": ticks, "onset": onset, "cue_end": 8, "return": 1.0, "error": None,
        "counters": {"observations": ticks, "plans": ticks, "writes": ticks, "renders": ticks + 1},
        "drift": drift[1:].tolist(),
    }  # fmt: skip


def clip(path: Path, ticks: int, tint: tuple[int, int, int]) -> Path:
    """A square that crosses a small picture."""
    frames = np.full((ticks, 96, 128, 3), 40, np.uint8)
    for t in range(ticks):
        x = 4 + 100 * t // ticks
        frames[t, 40:56, x : x + 16] = tint
    rollout_video.write(path, list(frames), 20.0)
    return path


def played(file: Path, lines: list[dict], knobs: dict | None = None, replan: int = 1, sha: str = "0a1b2c3d") -> Path:
    """An evaluation on disk: its lines and its settings."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {key: lines[0][key] for key in ("policy", "task", "intervention")}
    settings |= {"policy_sha256": sha + lines[0]["policy"], "knobs": knobs or {}, "replan": replan, "keep_onset": False}
    file.with_suffix(".settings.json").write_text(json.dumps(settings))
    return file


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory that has every part."""
    run, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    (run / "summary.json").write_text(json.dumps(summary()))
    (run / "eval").mkdir()
    (run / "videos").mkdir()
    for policy, floor in (("memoryless", 0.3), ("mu_vla", 0.04)):
        (run / policy).mkdir()
        losses = (floor + np.exp(-np.arange(600) / 120)) * rng.lognormal(0, 0.25, 600)
        lines = [json.dumps({"step": s, "loss": loss, "lr": 1e-3}) for s, loss in enumerate(losses.tolist())]
        (run / policy / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 600, "lo')
        for intervention in (None, "zero") if policy == "mu_vla" else (None,):
            file = run / "eval" / f"recall-color-3-{policy}-{intervention or 'none'}.jsonl"
            lines = [episode(policy, intervention, TEST + s, rng) for s in range(40)]
            good, films = policy == "mu_vla", file.with_suffix(".video")
            for i, colour in enumerate(COLOURS[:2]) if intervention is None else ():
                lines[i] |= {"success": good, "answer": colour, "choice": colour if good else COLOURS[2]}
                films.mkdir(exist_ok=True)
                clip(films / f"{TEST + i}.mp4", 40 + 10 * i + 8 * good, (200, 60, 60) if good else (60, 60, 200))
            played(file, lines)
    clip(run / "videos" / "attention-mu_vla.mp4", 30, (230, 200, 60))
    return run


@pytest.fixture
def run(complete: Path, tmp_path: Path) -> Path:
    """A copy of the complete run, to be changed."""
    return Path(shutil.copytree(complete, tmp_path / "run"))


def change(run: Path, **entries: object) -> None:
    """Overwrite entries of summary.json."""
    (run / "summary.json").write_text(json.dumps(summary() | entries))


def test_page_is_one_file_and_holds_every_part(complete: Path, tmp_path: Path) -> None:
    text = report.write(complete, tmp_path / "page.html").read_text()
    assert "One guesses, one remembers" in text
    for part in (
        "the choice begins at",
        "34.5 %",
        "96.5 %",
        "92.5 %",
        "p &lt; 10⁻¹²",
        "0123456789ab-dirty",
        "object positions &amp; colours",
        "an expert that never saw the cue in 32.9 % of 1,000 episodes (30–36 %)",
        "13.4 minutes of training, several at a time.",
        "made in 10.2 minutes",
        "m 8, rule gated, standardise True, read_scale 4, mask insulated, trained slots, loss huber, chunk 4",
        '<td class="wrap">m 0, trained slots, loss huber, chunk 4</td>',
        "plain write, full mask, l1: m 64, rule plain, standardise False, read_scale 1, mask full",
    ):
        assert part in text
    assert text.count('src="data:video/mp4;base64,') == 5
    assert text.count('<svg viewBox="') == 5
    assert not re.search(r'(?:src|href)="(?!data:|#)', text), "the page refers to another file"
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert len(text) < 5_000_000


def test_plots_are_well_formed_described_and_follow_the_colour_scheme(complete: Path) -> None:
    drawings = re.findall(r"<svg .*?</svg>", page.render(read(complete)), flags=re.DOTALL)
    for drawing in drawings:
        ElementTree.fromstring(drawing.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))
        assert 'aria-label="' in drawing
        assert "var(--muted)" in drawing
        assert "#010203" not in drawing
    identifiers = re.findall(r' id="([^"]+)"', "".join(drawings))
    assert len(identifiers) == len(set(identifiers))


def test_the_page_is_the_same_each_time(complete: Path) -> None:
    assert page.render(read(complete)) == page.render(read(complete))


def test_a_run_with_nothing_but_rates_still_has_a_page(tmp_path: Path) -> None:
    bare = {"task": "recall-color-3", "policies": {"memoryless": {"success": 0.3}}}
    (tmp_path / "summary.json").write_text(json.dumps(bare))
    text = report.write(tmp_path).read_text()
    for line in ("recorded no videos", "no interventions", "no success against delay", "no training metrics",
                 "drift was not recorded", "No per-episode", "no attention", "names no commit"):  # fmt: skip
        assert line in text
    assert "Results on recall-color-3" in text


@pytest.mark.parametrize(
    ("memoryless", "mu_vla", "words_of_it"),
    [
        (0.34, 0.95, "One guesses"),
        (0.34, 0.70, "not solved"),
        (0.60, 0.95, "Memory helps"),
        (0.60, 0.80, "not solved"),
        (0.90, 0.30, "harm"),
        (0.34, 0.36, "No difference"),
    ],
)
def test_headline_claims_only_what_the_numbers_show(
    run: Path, memoryless: float, mu_vla: float, words_of_it: str
) -> None:
    change(run, policies={"memoryless": wilson(memoryless, 200), "mu_vla": wilson(mu_vla, 200)})
    said = words.headline(read(run))
    assert words_of_it in said
    assert ("not solved" in said) <= (mu_vla < 0.9)


def test_oversized_videos_are_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "VIDEO_BYTES", 0)
    assert f"Left out to keep the page small: seed {TEST}, seed {TEST + 1}." in page.render(read(run))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (None, "expected a run (summary.json, eval/*.jsonl or metrics.jsonl), found none of these; run `engram eval`"),
        ("{", "expected JSON"),
        ("[]", "expected a JSON object"),
        ('{"policies": {}}', '"task" to be a string'),
        ('{"task": "t", "policies": {}}', '"policies" to map'),
        (
            '{"task": "t", "policies": {"a": {"success": 1}}, "paired": {"a": "x", "b": "y"}}',
            '"p_value" to be a number',
        ),
        ('{"task": "t", "policies": {"a": {"success": 1}}, "visible": [3]}', '"visible" to be an object, found [3]'),
        (
            '{"task": "t", "policies": {"a": {"success": 1}}, "delay_curve": [{"success": 1, "delay": 3}]}',
            '"delay_curve": expected "policy" to be a string, found None',
        ),
        ('{"task": "t", "policies": {"a": {"success": 97}}}', '"policies.a" to hold "success" in'),
        ('{"task": "t", "policies": {"a": {"success": 1}}, "visible": {"a": 3}}', '"visible.a" to hold'),
        ('{"task": "t", "policies": {"a": {"success": 1}}, "chance": {}}', '"chance" to be a number, found {}'),
        ('{"task": "t", "policies": {"a": {"success": 1}}, "chance": 33}', '"chance" to be in [0, 1], found 33'),
        ('{"task": "t", "policies": {"a": {"success": 1}}, "chance_measured": {}}', '"chance_measured" to hold'),
        (
            '{"task": "t", "policies": {"a": {"success": 1}}, "configuration": {"designs": {"a": 8}}}',
            '"configuration.designs": expected "a" to be an object, found 8',
        ),
        ('{"task": "t", "policies": {"a": {"success": 1}}, "delay_curve": [{}]}', '"delay_curve" point'),
    ],
)
def test_a_broken_summary_is_one_clear_error_and_writes_nothing(
    tmp_path: Path, content: str | None, names: str
) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(names)):
        report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_broken_line_is_named_and_a_line_cut_short_by_a_kill_is_left_out(run: Path) -> None:
    assert len(read(run).metrics["mu_vla"]) == 600  # the fixture ends in half a line
    (run / "mu_vla" / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match="metrics.jsonl:2: expected JSON"):
        read(run)


def test_an_episode_that_ended_in_an_error_is_counted_as_one(run: Path) -> None:
    line = {"task": "recall-color-3", "policy": "mu_vla", "seed": TEST + 99, "intervention": None, "success": None}
    with (run / "eval" / "recall-color-3-mu_vla-none.jsonl").open("a") as file:
        file.write(json.dumps(line | {"ticks": None, "onset": None, "drift": [], "error": "it broke"}) + "\n")
    (row,) = [row for row in words.episode_rows(read(run)) if row["policy"] == "μVLA" and row["intervention"] == "none"]
    assert (row["episodes"], row["errors"]) == (41, 1)


@pytest.mark.parametrize(
    ("file", "content", "names"),
    [
        ("mu_vla/metrics.jsonl", '{"loss": 1.0}\n', 'metrics.jsonl:1: expected "step" to be a number, found None'),
        ("eval/a.jsonl", '{"policy": "a", "seed": 0}\n', 'a.jsonl:1: expected "task" to be a string, found None'),
        ("eval/a.jsonl", "[]\n", "a.jsonl:1: expected a JSON object"),
    ],
)
def test_a_file_that_lacks_what_the_page_needs_is_named(run: Path, file: str, content: str, names: str) -> None:
    (run / file).write_text(content)
    with pytest.raises(ValueError, match=re.escape(names)) as error:
        read(run)
    assert "; " in str(error.value)  # what to do


def test_drift_is_aligned_to_the_choice(complete: Path) -> None:
    bands = plots.drift_bands(read(complete))
    assert list(bands) == ["mu_vla"]  # a memory that never moves has nothing to show
    ticks, (low, middle, high) = bands["mu_vla"]
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert middle[ticks == 0] > 4 * middle[ticks == -1]


def test_smoothing_keeps_a_constant_and_lies_between_extremes() -> None:
    assert plots.smooth_log(np.full(200, 0.5)) == pytest.approx(0.5)
    wild = np.random.default_rng(0).lognormal(size=500)
    smoothed = plots.smooth_log(wild)
    assert wild.min() <= smoothed.min()
    assert smoothed.max() <= wild.max()
    assert smoothed[100:].std() < wild.std() / 3


def test_picture_has_the_promised_size_with_and_without_videos(run: Path, tmp_path: Path) -> None:
    with Image.open(report.figure(run, tmp_path / "a.png")) as picture:
        assert picture.size == (1200, 700)
    for films in (run / "eval").glob("*.video"):
        shutil.rmtree(films)
    with Image.open(report.figure(run, tmp_path / "b.png")) as picture:
        assert picture.size == (1200, 420)


def test_a_truncated_video_is_one_clear_error(tmp_path: Path) -> None:
    good = clip(tmp_path / "good.mp4", 10, (220, 40, 40))
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cut.mp4: expected a complete mp4"):
        video.read_frames(tmp_path / "cut.mp4")


def test_result_table_carries_its_provenance(tmp_path: Path) -> None:
    rows = [
        {"policy": name, "task": "recall-color-3", "train_seed": 0} | wilson(rate, 200)
        for name, rate in POLICIES.items()
    ]
    path = report.write_result(
        tmp_path / "results" / "sweep.json", "sweep", "recipes/k_sweep.py", rows, 90.0,
        counters={"errors": 0}, configuration={"episodes": 200}, notes="A note.",
    )  # fmt: skip
    result = json.loads(path.read_text())
    made = {"name", "recipe", "commit", "versions", "machine", "seconds"}
    assert set(result) == made | {"rows", "counters", "configuration", "notes"}
    assert (result["rows"], result["configuration"]) == (rows, {"episodes": 200})
    assert result["versions"]["numpy"] == np.__version__
    table = path.with_suffix(".md").read_text()
    assert "| mu_vla | recall-color-3 | 0 | 0.965 |" in table
    assert table.endswith("A note.\n")
    with pytest.raises(ValueError, match=r"ends in \.json"):
        report.write_result(tmp_path / "sweep.md", "sweep", "r", rows, 1.0, {}, {})


def test_a_dirty_commit_stays_dirty_when_shortened() -> None:
    assert provenance.short("0123456789abcdef-dirty") == "0123456789ab-dirty"
    assert provenance.short("0123456789abcdef") == "0123456789ab"


def test_films_are_those_of_episodes_left_alone(run: Path) -> None:
    changed = run / "eval" / "recall-color-3-mu_vla-zero.video"
    shutil.copytree(run / "eval" / "recall-color-3-mu_vla-none.video", changed)
    videos = read(run).videos
    assert [(v["policy"], v["seed"]) for v in videos] == [(p, s) for p in POLICIES for s in (TEST, TEST + 1)]
    assert all(changed not in video["path"].parents for video in videos)


def test_an_evaluation_without_its_settings_is_refused(run: Path) -> None:
    (run / "eval" / "recall-color-3-mu_vla-zero.settings.json").unlink()
    with pytest.raises(ValueError, match=r"zero.jsonl: expected its settings in .*zero.settings.json, found no such"):
        read(run)


def line(seed: int, success: bool | None, **changes: object) -> dict:
    """An episode of one policy, as short as the report takes it."""
    start = {"task": "recall-color-3", "policy": "t1", "intervention": None, "seed": seed, "success": success}
    middle = {"choice": "red", "answer": "red" if success else "blue", "donor_answer": None, "onset": 9, "ticks": 20}
    return start | middle | {"error": None, "drift": [0.1] * 20, "counters": {"observations": 20}} | changes


def lines(successes: int, episodes: int, first: int = TEST, **changes: object) -> list[dict]:
    return [line(first + i, i < successes, **changes) for i in range(episodes)]


class TestAnyRun:
    """A run that has no summary.json: `engram train`, then `engram eval`."""

    @pytest.fixture
    def t1(self, tmp_path: Path) -> Path:
        """Trained, evaluated, some of it twice, in part with knobs, cadences and memories changed."""
        run = tmp_path / "t1"
        swap = {"intervention": "swap", "donor_answer": "red"}
        donors = lines(6, 8) + [line(TEST + 8, True)]  # eight of them are in the file without a mark, too
        for mark, episodes, more in (
            ("none", lines(6, 8), {}),
            ("swap-donors", donors, {}),
            ("swap", lines(1, 4, **swap), {}),
            ("zero@12", lines(2, 4, intervention="zero@12"), {}),
            ("none-delay_ticks=50", lines(3, 4), {"knobs": {"delay_ticks": 50}}),
            ("none-delay_ticks=2", lines(4, 4), {"knobs": {"delay_ticks": 2}}),
            ("none-range", lines(0, 4), {"knobs": {"delay_ticks": [2, 50]}}),
            ("none-cue", lines(0, 4), {"knobs": {"delay_ticks": 9, "cue_ticks": 1}}),
            ("none-replan=4", lines(0, 20), {"replan": 4, "sha": "4f"}),
            ("none-later", lines(0, 4), {"sha": "77aabb"}),
            ("none-seeds=2000000", lines(0, 4, VALIDATION), {}),
        ):
            played(run / "eval" / f"recall-color-3-t1-{mark}.jsonl", episodes, **more)
        played(run / "eval" / "other.jsonl", lines(1, 3, task="recall-color-5"))
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n')
        sittings = [{"commit": "aaaa", "versions": {}}, {"commit": "bbbbcccc", "versions": {"torch": "2.13.0"}}]
        (run / "config.json").write_text(json.dumps({"design": asdict(Design(m=4)), "sittings": sittings}))
        return run

    def test_what_was_measured_is_summed_up(self, t1: Path) -> None:
        found = read(t1)
        assert (found.task, found.intervened, list(found.metrics)) == ("recall-color-3", "t1", ["t1"])
        results = {name: (r["successes"], r["episodes"]) for name, r in found.policies.items()}
        assert results == {"t1": (7, 9), "t1 (replan 4)": (0, 20), "t1 (weights 77aabb)": (0, 4)}
        assert found.policies["t1"]["ci95"] == pytest.approx([0.4526, 0.9368], abs=1e-4)
        changed = found.summary["interventions"]
        assert {name: (r["success"], r["donor_choice"]) for name, r in changed.items()} == {
            "swap": (0.25, 1.0), "zero@12": (0.5, None)
        }  # fmt: skip
        curve = {(p["policy"], p["delay"]): p["success"] for p in found.summary["delay_curve"]}
        assert curve == {("t1", 2): 1.0, ("t1", 50): 0.75}
        assert found.summary["seeds"] == {"evaluated": [TEST, TEST + 19]}
        assert (found.summary["commit"], found.chance) == ("bbbbcccc", None)

    def test_the_table_keeps_apart_what_differs(self, t1: Path) -> None:
        rows = {(r["task"], r["policy"], r["intervention"]): r["episodes"] for r in words.episode_rows(read(t1))}
        assert rows["recall-color-3", "t1", "none"] == 9
        assert rows["recall-color-3 delay_ticks=50", "t1", "none"] == 4
        assert rows["recall-color-3 delay_ticks=9 cue_ticks=1", "t1", "none"] == 4
        assert rows["recall-color-3 (validation seeds)", "t1", "none"] == 4
        assert rows["recall-color-5", "t1", "none"] == 3

    def test_the_page_claims_nothing_else(self, t1: Path) -> None:
        text = report.write(t1).read_text()
        for part in ("<h1>Results on recall-color-3</h1>", "t1: same weights", "t1 chooses that episode",
                     "design of t1", "git checkout bbbbcccc</code>", "evaluations do not note their own"):  # fmt: skip
            assert part in text
        for claim in ("quickstart", "μVLA", "chance", "minutes", "guesses", "Paired"):
            assert claim not in text.partition("the paper's setting")[0], claim

    def test_films_are_those_of_the_task_alone(self, t1: Path) -> None:
        eval_, films = t1 / "eval", "recall-color-3-t1-none.video"
        (eval_ / films).mkdir()
        clip(eval_ / films / f"{TEST}.mp4", 12, (200, 60, 60))
        clip(eval_ / films / f"attention-{TEST + 1}.mp4", 12, (60, 200, 60))
        (eval_ / films / f"attention-{TEST}.partial.mp4").write_bytes(b"half")
        shutil.copytree(eval_ / films, eval_ / "recall-color-3-t1-swap.video")
        shutil.copytree(eval_ / films, eval_ / "recall-color-3-t1-none-delay_ticks=50.video")
        found = read(t1)
        assert [(v["policy"], v["seed"], v["path"].parent.name) for v in found.videos] == [("t1", TEST, films)]
        assert {(look["task"], look["seed"]) for look in found.attention} == {
            ("recall-color-3", TEST + 1), ("recall-color-3 delay_ticks=50", TEST + 1)
        }  # fmt: skip
        text = page.render(found)
        assert f"t1, recall-color-3, seed {TEST + 1}</figcaption>" in text
        assert "<h2>Films</h2>" in text

    def test_films_of_attention_have_a_budget(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(page, "ATTENTION_BYTES", 0)
        assert "Left out to keep the page small: μVLA." in page.render(read(run))

    def test_two_policies_of_the_known_names_are_compared(self, tmp_path: Path) -> None:
        for name, successes in (("memoryless", 30), ("mu_vla", 100)):
            played(tmp_path / "eval" / f"{name}.jsonl", lines(successes, 100, policy=name))
        assert words.headline(read(tmp_path)) == "Memory helps"

    def test_of_several_tasks_the_one_with_most_episodes(self, tmp_path: Path) -> None:
        played(tmp_path / "eval" / "a.jsonl", lines(1, 9, intervention="zero"))
        played(tmp_path / "eval" / "b.jsonl", lines(1, 3, task="recall-color-5"))
        played(tmp_path / "eval" / "c.jsonl", lines(1, 9, task="recall-color-9"), {"delay_ticks": 5})
        assert read(tmp_path).task == "recall-color-5"

    def test_trained_alone(self, t1: Path) -> None:
        shutil.rmtree(t1 / "eval")
        text = report.write(t1).read_text()
        assert "t1: not evaluated yet" in text
        assert "Line chart of training loss" in text
        assert '<div class="tiles">' not in text
        with pytest.raises(ValueError, match="expected an evaluated policy to draw, found none; run `engram eval`"):
            report.figure(t1, t1 / "a.png")

    def test_evaluated_alone_with_nothing_but_an_intervention(self, tmp_path: Path) -> None:
        played(tmp_path / "eval" / "a.jsonl", lines(1, 4, intervention="zero"))
        text = report.write(tmp_path).read_text()
        assert "no episode with its memory left alone came to an end" in text
        assert "t1 with its memory zeroed" in text
        assert "How to repeat it" not in text

    def test_errors_are_neither(self, tmp_path: Path) -> None:
        broken = line(TEST + 4, None, error="it broke", ticks=None, onset=None, drift=[])
        file = played(tmp_path / "eval" / "a.jsonl", [*lines(1, 4), broken])
        assert read(tmp_path).policies["t1"]["episodes"] == 4
        played(file.with_name("b.jsonl"), [line(TEST + 4, True)])  # played again, elsewhere
        assert read(tmp_path).policies["t1"]["successes"] == 2


def test_the_published_design_is_not_called_another(run: Path) -> None:
    change(run, configuration={"designs": {"mu_vla": asdict(Design()) | DESIGN | {"m": 8}}})
    ((title, text),) = words.designs(read(run))
    assert (title, text.partition(",")[0]) == ("design of μVLA", "m 8")
    frames = asdict(Design(memory="last-frames", frames=6))
    assert words.design(frames) == "memory last-frames, frames 6, trained slots, loss huber, chunk 4"
