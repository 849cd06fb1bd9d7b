"""The command line: `engram COMMAND --help` explains each. Wrong input ends with one sentence and exit code 2.

With ENGRAM_TRACEBACK=1 in the environment the sentence follows a traceback.
"""

import errno
import json
import os
import sys
import traceback
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from safetensors import SafetensorError

from engram.data.seeds import TEST
from engram.policies.design import Design
from engram.settings import Settings, WorldSettings

ABOUT = "A memory for robot policies. With ENGRAM_TRACEBACK=1 set, errors show where they come from."
DO = {errno.ENOSPC: "make room and run the same command again, nothing that was finished is lost"}


def _unchecked(kind: type) -> type:
    """A dataclass with the fields of `kind`, their help, and none of its checks.

    The parser makes this one; `kind` itself is made where what it refuses becomes one sentence, like all wrong input.
    """
    nothing = {"__post_init__": lambda self: None}
    return make_dataclass(kind.__name__, [], bases=(kind,), namespace=nothing, frozen=True)


@dataclass(frozen=True)
class Demos:
    """Record demonstrations of the scripted expert as a LeRobot v3 data set (parquet + mp4)."""

    task: tyro.conf.Positional[str]
    """Environment, e.g. recall-color-3, recall-color-5-visible or mikasa/RememberColor5."""
    out: Path | None = None
    """Folder to make, default runs/demos/TASK; killed in the middle, the same command goes on."""
    episodes: int = 250
    """Successful episodes to keep; failures are dropped and counted."""
    seed: int = 0
    """0 to 9; each has environment seeds of its own, disjoint from those of evaluation."""
    noise: float = 0.3
    """How far the executed actions stray from the expert's, so that recovery is seen."""
    workers: int = 2
    """Processes; the data set does not depend on it."""
    knobs: tuple[str, ...] = ()
    """Settings of the environment, NAME=VALUE each, e.g. delay_ticks=[0,20] colors=5."""

    def run(self) -> None:
        """Play and record."""
        from engram.demos import collect

        out = self.out or Path("runs/demos") / self.task
        made = collect(self.task, self.episodes, out, self.seed, self.noise, self.workers, **_knobs(self.knobs))
        _say(f"{out}: {made.kept} episodes, {made.frames} frames; {made.dropped} failures dropped")


@dataclass(frozen=True)
class Train:
    """Train a policy on demonstrations; killed in the middle, the same command goes on to the same weights
    (on a GPU: up to rounding)."""

    data: tuple[Path, ...]
    """Data set folders (LeRobot v3); several are mixed. One named twice is shown twice as often."""
    out: Path
    """Folder of the run: OUT/checkpoint is the policy, OUT/metrics.jsonl its learning curve."""
    design: Annotated[Any, tyro.conf.arg(constructor=_unchecked(Design))]
    settings: Annotated[Any, tyro.conf.arg(constructor=_unchecked(Settings))]
    preset: Literal["engram", "paper"] = "engram"
    """paper: muVLA's published choices (m=64, hidden states written and read as they are, full mask, L1, chunk 8, K=2,
    one update per K ticks); other values of these are refused."""

    def run(self) -> None:
        """Read the data, train, print the summary."""
        from engram.data.lerobot import Dataset
        from engram.policies.published import published
        from engram.train import fit, keep_pages

        keep_pages()
        design, settings = Design(**vars(self.design)), Settings(**vars(self.settings))
        if self.preset == "paper":
            design, settings = published(design, settings)
        summary = fit(Dataset(*self.data), design, settings, self.out)
        _say(f"{self.out}/checkpoint: {json.dumps(summary)}")


@dataclass(frozen=True)
class TrainWorld:
    """Train a world model on demonstrations: what follows what. Killed in the middle, the same command goes on."""

    data: tuple[Path, ...]
    """Data set folders (LeRobot v3)."""
    out: Path
    """Folder of the run: OUT/checkpoint is the world model, OUT/summary.json says how well it foresees."""
    settings: Annotated[Any, tyro.conf.arg(constructor=_unchecked(WorldSettings))]
    start: str | None = None
    """Stable Video Diffusion, or a model of its kind: a folder in diffusers' layout or OWNER/NAME on the Hub. Default:
    a tiny one with random weights, which trains on a CPU."""
    text: Path | None = None
    """Folder of a CLIP text encoder with its tokenizer, beside --start; default: words are learned."""
    zoom: int = 1
    """How many times larger pictures are shown to --start's autoencoder than they are."""
    camera: str = "base"
    """The camera that is foreseen."""
    frames: int = 8
    """How many frames of the future."""
    stride: int = 1
    """Ticks from one to the next."""
    held_out: int = 10
    """So many of the last episodes are not learned from: on them it is measured how well the future is foreseen."""

    def run(self) -> None:
        """Train, print the summary."""
        from engram.data.lerobot import Dataset
        from engram.train import keep_pages
        from engram.train_world import begin_world, last_episodes, train_world

        keep_pages()
        settings, data = WorldSettings(**vars(self.settings)), Dataset(*self.data)
        held_out = last_episodes(data, self.held_out)
        asked = (self.camera, self.frames, self.stride, self.start, self.text, self.zoom, settings.seed)
        summary = train_world(begin_world(data, held_out, *asked), data, held_out, settings, self.out)
        _say(f"{self.out}/checkpoint: {json.dumps(summary)}")


@dataclass(frozen=True)
class Eval:
    """Evaluate a checkpoint on unseen episodes, with or without an intervention on its memory."""

    checkpoint: tyro.conf.Positional[Path]
    """Folder made by `engram train` (RUN/checkpoint)."""
    task: str
    """Environment."""
    out: Path | None = None
    """Episodes as JSON lines; finished ones are not played again. Default: in RUN/eval beside the checkpoint (runs/NAME
    of weights that lie in a folder NAME of their own), a file for every intervention, tick, cadence, knob and first
    seed; more episodes are added to it."""
    seeds: int = TEST
    """The first environment seed, from which the others are counted up (3000000: test, 2000000: validation)."""
    episodes: int = 100
    """Number of episodes, and so of seeds."""
    intervention: Literal["none", "zero", "noise", "freeze", "reset", "swap"] = "none"
    """What is done to memory; swap first plays the episodes untouched to collect the donors' memories."""
    at: int | Literal["cue"] | None = None
    """Tick at which the intervention begins, or cue: when the cue ends; default: when the choice begins. Every episode
    must last longer."""
    replan: int | None = None
    """Ticks between plans; default: as the checkpoint was made for. Memory is written at every tick regardless."""
    ensemble: float | None = None
    """Weight of each older plan in what is played, relative to the next newer one, 0 to 1 (0: the newest plan alone);
    default: as the checkpoint was made for."""
    lanes: int | None = None
    """Episodes played side by side; default 16, for MIKASA-Robo one for each worker (a simulator takes 1 GB)."""
    workers: int = 2
    """Simulator processes."""
    videos: int = 0
    """Film the first so many episodes."""
    attention: int = 0
    """Film where memory tokens and action slots look in the first so many episodes (with memory left alone)."""
    knobs: tuple[str, ...] = ()
    """Settings of the environment, NAME=VALUE each, e.g. delay_ticks=100."""

    def run(self) -> None:
        """Play the episodes, print the summary."""
        from engram.rollout.checkpoint import evaluate_checkpoint

        summary = evaluate_checkpoint(
            self.checkpoint, self.task, range(self.seeds, self.seeds + self.episodes), self.out,
            intervention=self.intervention, at=self.at, replan=self.replan, ensemble=self.ensemble, lanes=self.lanes,
            workers=self.workers, videos=self.videos, attention=self.attention, knobs=_knobs(self.knobs),
        )  # fmt: skip
        Console().print_json(json.dumps(summary))


@dataclass(frozen=True)
class Suite:
    """Evaluate a checkpoint on a whole benchmark by its protocol; killed in the middle, the same command goes on."""

    suite: tyro.conf.Positional[Literal["mikasa"]]
    """mikasa: MIKASA-Robo-VLA, muVLA's 23 tasks in three groups and MemoryVLA's five; needs `make mikasa`."""
    checkpoint: Path
    """Folder made by `engram train` (RUN/checkpoint)."""
    out: Path | None = None
    """Folder of the results; default RUN/suite-mikasa beside the checkpoint, runs/NAME/suite-mikasa of weights that lie
    in a folder NAME of their own."""
    only: tuple[str, ...] = ()
    """Groups (train, matched, novel, canonical) or tasks; default: all."""
    episodes: int = 100
    """Episodes of each task."""
    workers: int = 2
    """Simulator processes, 1 GB each."""
    videos: int = 0
    """Film the first so many episodes of each task."""
    strict: bool = False
    """Draw all that the protocol draws, at three times the time; by default an invisible mesh is left out."""
    device: Literal["cpu", "gpu"] | None = None
    """Where to simulate and draw; default: a GPU if torch finds one (which needs its Vulkan driver, too)."""

    def run(self) -> None:
        """Play what is missing, print the means."""
        from engram import suite
        from engram.files import run_folder

        out = self.out or run_folder(self.checkpoint) / f"suite-{self.suite}"
        knobs = ({"strict": True} if self.strict else {}) | ({"device": self.device} if self.device else {})
        protocol = suite.mikasa_suite(self.device)
        found = suite.run(protocol, self.checkpoint, out, self.only, self.episodes, self.workers, self.videos, knobs)
        for group in found["groups"]:
            _say(f"{group['group']}: {group['success']:.3f}, mean of {group['tasks']} of {group['of']} tasks")
        _say(f"{out}/report.html{', suite.md, suite.json' if found['tasks'] else ''}: all of it")


@dataclass(frozen=True)
class Export:
    """Write a checkpoint for others: the same policy without the weights that ship, which halves it at best."""

    checkpoint: tyro.conf.Positional[Path]
    """Folder made by `engram train` (RUN/checkpoint)."""
    out: Path
    """Folder to make; wherever a checkpoint is asked for, it can be given."""

    def run(self) -> None:
        """Write it, print its size."""
        from engram.policies.checkpoint import slim

        slim(self.checkpoint, self.out)
        _say(f"{self.out}: {sum(file.stat().st_size for file in self.out.iterdir()) / 1e6:.1f} MB")


@dataclass(frozen=True)
class Report:
    """Write RUN/report.html: one self-contained page with plots, videos and provenance."""

    run_folder: tyro.conf.Positional[Path]
    """Folder of a quickstart, or of a training with its evaluations (RUN/metrics.jsonl, RUN/eval)."""
    out: Path | None = None
    """Where to write; default RUN/report.html."""

    def run(self) -> None:
        """Write the page, print its path."""
        from engram.report import write

        _say(str(write(self.run_folder, self.out)))


@dataclass(frozen=True)
class Quickstart:
    """The main job: demonstrations, a memoryless and a memory policy on equal budgets, evaluation, one report."""

    out: Path = Path("runs/quickstart")
    """Folder of the run; killed in the middle, the same command goes on."""
    updates: int | None = None
    """Optimizer steps of each policy; default: what the result in the README was made with."""
    demos: int | None = None
    """Demonstrations of each of the two tasks; default likewise."""
    episodes: int = 200
    """Test episodes per figure."""

    def run(self) -> None:
        """Do all of it."""
        from engram.quickstart import quickstart

        quickstart(self.out, self.updates, self.demos, self.episodes)


@dataclass(frozen=True)
class Study:
    """Run a study (several policies, several training seeds, one table); resumable run by run."""

    recipe: tyro.conf.Positional[Path]
    """A recipe with a STUDY, e.g. recipes/k_sweep.py."""
    out: Path | None = None
    """Folder of the runs; default runs/NAME. The table goes to results/ of the current directory: results/NAME.json."""

    def run(self) -> None:
        """Train and test what is missing."""
        from engram.study import run_recipe

        run_recipe(self.recipe, self.out)


@dataclass(frozen=True)
class Bench:
    """Time rows of the score card, each side by side with a plain reference, equality first; no row: list them."""

    row: tyro.conf.Positional[str | None] = None
    """P4, P7, P12, ..."""
    all: bool = False
    """Every row; exit status 1 if a bar is missed."""
    json: bool = False
    """Print the result as the last line, in JSON."""
    against: str | None = None
    """P7: another baseline (kv-all)."""

    def run(self) -> None:
        """Measure and print."""
        from engram import bench

        if self.all and (self.row or self.against):
            raise ValueError(f"--all: expected no row and no --against beside it, found {self.row or self.against!r}")
        if self.all:
            sys.exit(bench.run_all(self.json))
        if self.row is None:
            bench.show()
        else:
            bench.run(self.row, self.json, self.against)


Command = Annotated[
    Annotated[Demos, tyro.conf.subcommand("demos")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[TrainWorld, tyro.conf.subcommand("train-world")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Suite, tyro.conf.subcommand("suite")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[Study, tyro.conf.subcommand("study")]
    | Annotated[Bench, tyro.conf.subcommand("bench")],
    tyro.conf.OmitSubcommandPrefixes,
]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `engram`.

    Exit codes: 0 done, 1 a result that disagrees with itself or a bar that was missed, 2 wrong input, 130 stopped.
    """
    try:
        command = tyro.cli(Command, args=arguments, prog="engram", description=ABOUT)
    except BrokenPipeError:  # `engram train --help | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    try:
        command.run()
    except ModuleNotFoundError:
        raise  # a defect, to be seen whole: optional packages that are missing are named by who needs them
    except (ValueError, OSError, ImportError, SafetensorError) as error:
        _end(2, _sentence(error))
    except RuntimeError as error:
        if not type(error).__module__.startswith("engram."):
            raise  # a defect, likewise
        _end(1, f"{type(error).__name__}: {error}; set ENGRAM_TRACEBACK=1 to see where it comes from")
    except KeyboardInterrupt:
        _end(130, "stopped; the same command goes on from here")


def _sentence(error: Exception) -> str:
    """What was expected, what was found and what to do; errors of the system say only the second."""
    if isinstance(error, SafetensorError):
        return f"tensors: expected to read or write a file of them, found: {error}; make room, or see that it is whole"
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    do = DO.get(error.errno or 0, "see that the path exists and may be written")
    return f"{error.filename or 'a file'}: expected to read or write it, found: {error.strerror}; {do}"


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True)


def _end(code: int, text: str) -> None:
    """Say why in red and leave; called where the error is being handled."""
    if os.environ.get("ENGRAM_TRACEBACK") == "1":
        traceback.print_exc()
    Console(stderr=True).print(f"engram: {text}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)


def _knobs(pairs: tuple[str, ...]) -> dict:
    """NAME=VALUE pairs; values in JSON (3, [0,20], true), True and False as Python has them, anything else is text."""
    knobs, python = {}, {"True": True, "False": False}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"knobs: expected NAME=VALUE, found {pair!r}; e.g. delay_ticks=[0,20]")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = python.get(text, text)
        knobs[name] = tuple(value) if isinstance(value, list) else value
    return knobs


if __name__ == "__main__":
    main()
