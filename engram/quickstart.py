"""The main job, end to end: show that memory is what makes the difference.

Demonstrations of a task and of its twin in which the cue stays visible; for each of the two a memoryless policy and
muVLA, with the same backbone, demonstrations, updates and frames; unseen episodes; interventions on memory; one page
with all of it.
Every step is resumable and is skipped when it is done.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from engram import provenance, walltime
from engram.crew import Job, counters, fit_all, trained, trained_by
from engram.data.seeds import TEST
from engram.demos import SPAN, collect
from engram.envs.tabletop import make
from engram.files import replace_text
from engram.policies import checkpoint
from engram.policies.design import Design
from engram.report import figure, write, write_result
from engram.rollout import compare
from engram.rollout.chance import chance
from engram.rollout.checkpoint import evaluate_checkpoint
from engram.rollout.overlay import film_attention
from engram.settings import Settings

console = Console(stderr=True)
FILMS = 4
SITTING = (
    "seconds",
    "simulator_share",
    "commit",
    "versions",
)  # of an evaluation's last sitting: another one changes no result


@dataclass(frozen=True)
class Plan:
    """What the quickstart does; the defaults are what the README's figures were made with."""

    task: str = "recall-color-3"
    demos: int = 500
    episodes: int = 200
    settings: Settings = field(default_factory=lambda: Settings(updates=400, slots=16))
    designs: dict[str, Design] = field(default_factory=lambda: {"mu_vla": Design(m=8), "memoryless": Design(m=0)})
    interventions: tuple[str, ...] = ("zero", "noise", "swap", "freeze", "reset")
    brief: tuple[str, ...] = ("freeze", "reset")  # interventions on fewer episodes
    delays: tuple[int, ...] = (2, 8, 20, 50)
    delay_episodes: int = 40
    chance_episodes: int = 1000

    def __post_init__(self):
        if not 1 <= self.demos <= SPAN // 2:
            raise ValueError(f"demos: expected 1 to {SPAN // 2}, found {self.demos}; choose a number in between")
        if self.demos < self.settings.slots:
            expected = f"at least {self.settings.slots}, one for each row of an update"
            raise ValueError(f"demos: expected {expected}, found {self.demos}; ask for more")
        if self.episodes < 2:
            why = "a swap needs another episode's memory"
            raise ValueError(f"episodes: expected at least 2 ({why}), found {self.episodes}; choose a larger number")

    @property
    def tasks(self) -> dict[str, str]:
        """Task -> what is added to the names of its policies."""
        return {self.task: "", f"{self.task}-visible": "-visible"}


def quickstart(out: Path, updates: int | None = None, demos: int | None = None, episodes: int = 200) -> dict:
    """Run the plan in `out` and return its summary (also out/summary.json and out/report.html)."""
    plan = Plan()
    plan = replace(plan, demos=plan.demos if demos is None else demos, episodes=episodes)
    if updates is not None:
        plan = replace(plan, settings=replace(plan.settings, updates=updates))
    return run(plan, Path(out))


def run(plan: Plan, out: Path) -> dict:
    """What of the plan `out` does not hold yet, and its summary. ValueError if `out` holds another plan's policies."""
    settle(plan, out)
    with walltime.timed(out):
        make_demos(plan, out)
    with walltime.timed(out):
        training = learn(plan, out)
    with walltime.timed(out):
        film_looks(plan, out)
        results = measure(plan, out) | {
            "train_seconds": round(sum(run["train_seconds"] for run in training.values()), 1),
            "frames_per_second_train": round(training["mu_vla"]["frames_per_second"], 1),
            "training": training,
            "command": command(plan),
            "configuration": asdict(plan),
        }
    summary = stamped(out, results)
    publish(out, summary)
    return summary


def settle(plan: Plan, out: Path) -> None:
    """Keep in `out` what decides the policies. ValueError if `out` holds those of another plan."""
    whole = asdict(plan)
    provenance.settle(out, {key: whole[key] for key in ("task", "demos", "settings", "designs")})


def command(plan: Plan) -> str:
    """What to type for this plan."""
    asked, usual = ({"updates": p.settings.updates, "demos": p.demos, "episodes": p.episodes} for p in (plan, Plan()))
    other = [f"--{name} {asked[name]}" for name in asked if asked[name] != usual[name]]
    return f"make quickstart ARGS='{' '.join(other)}'" if other else "make quickstart"


def make_demos(plan: Plan, out: Path) -> None:
    """Demonstrations of the task and of its visible twin: two data sets."""
    for seed, task in enumerate(plan.tasks):
        if not (out / "demos" / task).exists():
            collect(task, plan.demos, out / "demos" / task, seed=seed)


def learn(plan: Plan, out: Path) -> dict[str, dict]:
    """All policies, trained side by side on equal budgets; for each what its run says of itself."""
    jobs = {  # the slowest first: cores then end together
        name + mark: Job((out / "demos" / task,), design, plan.settings, out / (name + mark))
        for name, design in plan.designs.items()
        for task, mark in plan.tasks.items()
    }
    fit_all({name: job for name, job in jobs.items() if not trained(job)})
    return {name: counters(job) | {"trained_by": trained_by(job.out)} for name, job in jobs.items()}


def measure(plan: Plan, out: Path) -> dict:
    """Everything that the report shows, on test seeds."""
    seeds = range(TEST, TEST + plan.episodes)
    few = seeds[: plan.delay_episodes]

    def evaluated(name: str, task: str = plan.task, seeds=seeds, intervention: str = "none", **options) -> dict:
        file = eval_file(out, task, name, intervention, options)
        result = evaluate_checkpoint(
            out / name / "checkpoint", task, seeds, file, intervention=intervention, name=name, **options
        )
        return {key: value for key, value in result.items() if key not in SITTING}

    # The order of the page: memoryless first. The untouched episodes of muVLA keep their memories for the swap.
    policies = {name: evaluated(name, videos=FILMS, keep_onset=name == "mu_vla") for name in ("memoryless", "mu_vla")}
    curve = [{**evaluated("mu_vla", seeds=few, knobs={"delay_ticks": delay}), "delay": delay} for delay in plan.delays]
    untouched = eval_file(out, plan.task, "mu_vla", "none", {})
    interventions = {
        kind: evaluated("mu_vla", intervention=kind, seeds=few if kind in plan.brief else seeds, donors=untouched)
        for kind in plan.interventions
    }
    measured = chance(out / "chance.json", plan.task, plan.chance_episodes, seed0=0)
    return {
        "task": plan.task,
        "chance": measured["success"],
        "chance_measured": measured,
        "policies": policies,
        "visible": {name: evaluated(f"{name}-visible", f"{plan.task}-visible") for name in policies},
        "interventions": interventions,
        "delay_curve": curve,
        "trained_delay": [2, 8],
        "paired": paired(plan, out),
        "seeds": {"demonstrations": "1000000...", "test": [seeds[0], seeds[-1]]},
        "notes": {
            "pretraining": "the backbone was pretrained on single frames of random scenes with privileged labels "
            "(engram/backbones/tiny_s.json); policies saw demonstrations alone",
            "budget": "both policies of a task: same backbone, demonstrations, updates and frames",
        },
    }


def eval_file(out: Path, task: str, name: str, intervention: str, options: dict) -> Path:
    """Where the episodes of an evaluation go."""
    marks = "".join(f"-{key}{value}" for key, value in options.get("knobs", {}).items())
    folder = "delays" if marks else "eval"
    return out / folder / f"{task}-{name}-{intervention}{marks}.jsonl"


def paired(plan: Plan, out: Path) -> dict:
    """Paired test of muVLA against the memoryless policy over the same seeds."""
    ours, theirs = (eval_file(out, plan.task, name, "none", {}) for name in ("mu_vla", "memoryless"))
    test = compare(ours, theirs)
    return {"a": "mu_vla", "b": "memoryless", "p_value": test["p"], "episodes": test["episodes"]}


def film_looks(plan: Plan, out: Path) -> None:
    """Where muVLA's memory tokens and action slots look, in the first test episode."""
    film = out / "videos" / f"attention-mu_vla-{TEST}.mp4"
    if not film.exists():
        policy, _ = checkpoint.load(out / "mu_vla" / "checkpoint")
        film_attention(policy, partial(make, plan.task), TEST, film)


def stamped(out: Path, results: dict) -> dict:
    """The summary of these results: the one that `out` holds if it has the same, else a new one of this moment."""
    file, results = out / "summary.json", json.loads(json.dumps(results))
    before = json.loads(file.read_text()) if file.exists() else {}
    if before | results == before:
        return before
    return results | {
        "wall_seconds": round(walltime.spent(out), 1),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }


def tabulate(out: Path, summary: dict) -> None:
    """out/quickstart.json and .md: the table as results/ keeps it."""
    task, twin = summary["task"], f"{summary['task']}-visible"
    shown = [(name, task, row) for name, row in summary["policies"].items()]
    shown += [(name, twin, row) for name, row in summary["visible"].items()]
    shown += [("mu_vla", task, row) for row in (*summary["interventions"].values(), *summary["delay_curve"])]
    columns = ("intervention", "episodes", "successes", "success", "ci95", "donor_choice", "delay")
    rows = [
        {"policy": name, "task": on, "train_seed": 0, **{column: row.get(column) for column in columns}}
        | {"trained_by": summary["training"][name + on.removeprefix(task)]["trained_by"]}
        for name, on, row in shown
    ]
    made = {
        key: sum(row["counters"][key] for _, _, row in shown) for key in ("observations", "writes", "plans", "renders")
    } | {"errors": sum(row["errors"] for _, _, row in shown)}
    (first, last), guessed = summary["seeds"]["test"], summary["chance_measured"]["episodes"]
    notes = f"Test seeds {first}-{last}; one training seed; chance {summary['chance']} ({guessed} episodes)."
    command, wall, asked = (summary[key] for key in ("command", "wall_seconds", "configuration"))
    write_result(out / "quickstart.json", "quickstart", command, rows, wall, made, asked, notes)


def publish(out: Path, summary: dict) -> None:
    """summary.json, the table, report.html and the picture; then the result in words."""
    file, text = out / "summary.json", json.dumps(summary, indent=1) + "\n"
    if not file.exists() or file.read_text() != text:
        tabulate(out, summary)  # first: where the summary is, the table is, and both stay as they are
        replace_text(file, text)
    page = write(out)
    figure(out, out / "quickstart.png")
    rates = {name: summary["policies"][name]["success"] for name in ("memoryless", "mu_vla")}
    console.print(f"memoryless {rates['memoryless']:.0%}, mu_vla {rates['mu_vla']:.0%}, chance {summary['chance']:.0%}")
    console.print(f"Open {page} in a browser.")
