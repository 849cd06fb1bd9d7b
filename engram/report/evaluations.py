"""The evaluations of a run: what was played under which settings, kept apart wherever the settings differ.

An evaluation is a file of episodes with its settings beside it, as engram/rollout/records.py describes them. Files that
differ in a knob, in the cadence of plans or in the weights are never counted together; files that agree in all of it
(the donors of a swap are such) are, each seed once.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from engram.data.seeds import TEST, VALIDATION
from engram.report.checked import Json, Kinds, lines, parse, require

EpisodeKey = tuple[str, str, str]  # task, policy, intervention ("none" where memory is left alone)
EPISODE: Kinds = {"task": str, "policy": str, "seed": int, "ticks": object, "success": object}  # null after an error
SETTINGS: Kinds = {"task": str, "policy": str, "policy_sha256": str, "knobs": dict, "replan": int}


@dataclass(frozen=True)
class Evaluation:
    """One file.

    policy    its name; where several policies of a run have it, with what tells this one apart
    settings  what decided its episodes
    """

    file: Path
    policy: str
    settings: Json
    episodes: list[Json]

    @property
    def task(self) -> str:
        """The environment, then the knobs that were turned and the seeds, where those are not of the test."""
        turned = "".join(f" {knob}={value}" for knob, value in self.settings["knobs"].items())
        return f"{self.settings['task']}{turned}{self.use}"

    @property
    def use(self) -> str:
        """What its seeds are for, where they are not those to report by."""
        first = min(episode["seed"] for episode in self.episodes)
        return "" if first >= TEST else " (validation seeds)" if first >= VALIDATION else " (other seeds)"

    @property
    def plain(self) -> bool:
        """Whether this is the task as its name says it, on test seeds."""
        return self.task == self.settings["task"]

    @property
    def delay(self) -> int | None:
        """The delay in ticks, where it is a number and the only knob that was turned."""
        knobs = self.settings["knobs"]
        return knobs["delay_ticks"] if list(knobs) == ["delay_ticks"] and type(knobs["delay_ticks"]) is int else None

    @property
    def key(self) -> EpisodeKey:
        """What its episodes are counted under."""
        return self.task, self.policy, self.settings.get("intervention") or "none"

    @property
    def films(self) -> Path:
        """The folder of its films, which need not exist."""
        return self.file.with_suffix(".video")


def evaluations(folder: Path) -> list[Evaluation]:
    """Those of `folder` that hold an episode. ValueError for a line or settings that are not what they should be."""
    found = [_read(file) for file in sorted(folder.glob("*.jsonl"))]
    return _told_apart([each for each in found if each.episodes])


def grouped(found: list[Evaluation]) -> dict[EpisodeKey, list[Json]]:
    """All episodes by what they are counted under, each seed once; one that ended in an error gives way to another."""
    groups: dict[EpisodeKey, dict[int, Json]] = {}
    for each in found:
        group = groups.setdefault(each.key, {})
        for episode in each.episodes:
            if episode["seed"] not in group or group[episode["seed"]].get("error"):
                group[episode["seed"]] = episode
    return {key: list(group.values()) for key, group in groups.items()}


def filmed(found: list[Evaluation], task: str) -> list[Json]:
    """The films of `task` with memory left alone: policy, seed, success, choice, answer and the path of each."""
    films: dict[tuple[str, int], Json] = {}
    for each in found:
        for episode in each.episodes if each.key == (task, each.policy, "none") else ():
            path = each.films / f"{episode['seed']}.mp4"
            said = {key: episode.get(key) for key in ("seed", "success", "choice", "answer")}
            if path.is_file():
                films.setdefault((each.policy, episode["seed"]), {"policy": each.policy, **said, "path": path})
    return list(films.values())


def looks(found: list[Evaluation]) -> list[Json]:
    """The films of where a policy looks (`engram eval --attention`): policy, task, seed and the path of each."""
    return [
        {"policy": each.policy, "task": each.task, "seed": episode["seed"], "path": path}
        for each in found
        for episode in each.episodes
        if (path := each.films / f"attention-{episode['seed']}.mp4").is_file()
    ]


def _read(file: Path) -> Evaluation:
    episodes, beside = list(lines(file, EPISODE)), file.with_suffix(".settings.json")
    if not beside.is_file():
        raise ValueError(f"{file}: expected its settings in {beside.name}, found no such file; evaluate it again")
    settings = parse(beside.read_text(encoding="utf-8"), str(beside))
    require(str(beside), settings, SETTINGS)
    return Evaluation(file, settings["policy"], settings, episodes)


def _told_apart(found: list[Evaluation]) -> list[Evaluation]:
    """Policies of one name, named apart: the one that plans most often keeps it, and of those the most tested one."""
    tested = Counter[tuple[str, int, str]]()
    for each in found:
        tested[_identity(each)] += len(each.episodes)
    kinds = sorted(tested, key=lambda kind: (kind[:2], -tested[kind], kind))
    names: dict[tuple[str, int, str], str] = {}
    for name, replan, sha in kinds:
        alike = [other[:2] for other in kinds].count((name, replan))
        mark = f"replan {replan}" if alike == 1 else f"weights {sha[:6]}"
        names[name, replan, sha] = f"{name} ({mark})" if name in names.values() else name
    return [replace(each, policy=names[_identity(each)]) for each in found]


def _identity(each: Evaluation) -> tuple[str, int, str]:
    return each.settings["policy"], each.settings["replan"], each.settings["policy_sha256"]
