"""Episodes on disk: one JSON line each, appended as they end, and beside them the settings they were made with.

`NAME.jsonl` holds the lines, `NAME.settings.json` the settings, `NAME.onset/SEED.safetensors` the memory that an
episode had at its onset (or at the tick `kept_at`) and `NAME.video/SEED.mp4` its film, where asked for. A killed run
leaves at most one incomplete last line, which is dropped.

A line: `policy`, `task`, `intervention` (null for none), `seed`; `success`, `choice`, `answer`, `donor_answer` and
`donor_seed` (swap only), `return`; `ticks`, `cue_end`, `onset` (control ticks); `counters` (`observations`, `plans`,
`writes`, `renders`); `intervened` (ticks observed with the intervention in force); `drift` per tick (empty for a policy
without memory); `deaths` (of the simulator's process while it was played); `error` (null, or what the environment
said, and then no outcome).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from engram.carry import Carry
from engram.files import replace_text
from engram.policies.base import Policy
from engram.rollout.interventions import Donor


def fingerprint(policy: Policy) -> str:
    """SHA-256 over what decides a policy's behaviour: its modules, spec, cadence and every tensor, bit for bit.

    A module that behaves by more than its tensors and parts says so when printed (`extra_repr`).
    """
    digest = hashlib.sha256(f"{policy} {policy.spec} {policy.replan} {policy.ensemble}".encode())
    for name, value in sorted(policy.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def resume(path: Path, asked: Mapping[str, object]) -> dict[int, dict]:
    """The finished episodes of `path` by seed, ready to be appended to; none for a new file.

    Lines of episodes that ended in an error are dropped: they are tried again. Raises ValueError when the file was
    made with other settings, naming them.
    """
    expected = json.loads(json.dumps(asked))
    beside = path.with_suffix(".settings.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _require_same(path, expected)
    else:
        _clear(path)
        replace_text(beside, json.dumps(expected, indent=1) + "\n")
        replace_text(path, "")
    done = {line["seed"]: line for line in _lines(path) if line["error"] is None}
    replace_text(path, "".join(json.dumps(line) + "\n" for line in done.values()))
    return done


def _clear(path: Path) -> None:
    """Remove films and memories that a removed file of this name left behind: they may be another policy's."""
    for suffix, kept in ((".video", "[0-9]*.mp4"), (".onset", "[0-9]*.safetensors")):
        for file in path.with_suffix(suffix).glob(kept):
            file.unlink()


def read(path: Path) -> list[dict]:
    """Every complete line of `path`, sorted by seed. Raises ValueError when there is no such file."""
    if not path.is_file():
        raise ValueError(f"expected the episodes of an evaluation at {path}, found no file; run `engram eval` first")
    return sorted(_lines(path), key=lambda line: line["seed"])


def settings(path: Path) -> dict:
    """What the episodes of `path` were made with. Raises ValueError when there is no such file."""
    beside = path.with_suffix(".settings.json")
    if not beside.is_file():
        raise ValueError(f"{path}: expected its settings in {beside}, found no file; choose a new file for results")
    return json.loads(beside.read_text(encoding="utf-8"))


def save_onset(path: Path, seed: int, memory: Carry) -> None:
    """Keep the `memory/` row that episode `seed` of `path` had at its onset, or at a tick."""
    folder = path.with_suffix(".onset")
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in memory.items()}, folder / f"{seed}.safetensors")


def donors(path: Path) -> dict[int, Donor]:
    """For every episode of `path` another with a different answer: the next seed in order, around the end.

    `path` is an evaluation without intervention that kept memories. Raises ValueError when there is none for a seed.
    """
    episodes = [line for line in read(path) if line["error"] is None]
    if "kept_at" not in settings(path) and (at_once := [line["seed"] for line in episodes if line["onset"] == 0]):
        expected = "episodes with a cue before the choice, at whose end memories are exchanged"
        raise ValueError(f"swap: expected {expected}, found none in seed {at_once[0]}; name a tick (--at)")
    return {line["seed"]: _donor(path, line, episodes[i + 1 :] + episodes[:i]) for i, line in enumerate(episodes)}


def _donor(path: Path, episode: dict, others: list[dict]) -> Donor:
    folder = path.with_suffix(".onset")
    for other in others:
        kept = folder / f"{other['seed']}.safetensors"
        if other["answer"] != episode["answer"] and kept.is_file():
            return Donor(other["seed"], other["answer"], load_file(kept))
    raise ValueError(
        f"{path}: expected an episode with another answer than seed {episode['seed']} and its memory in {folder}, "
        "found none; evaluate more seeds with keep_onset first"
    )


def _lines(path: Path) -> Iterator[dict]:
    """The complete lines of `path`; a last one without its end is what a killed run was writing."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{number}: expected an episode as JSON, found {error}; remove the line: it is played again"
            ) from error


def _require_same(path: Path, expected: dict) -> None:
    found = settings(path)
    other = {key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)}
    if other:
        key = min(other)
        raise ValueError(
            f"{path} holds episodes of another setting: expected {key} {expected.get(key)!r}, found {found.get(key)!r}"
            f" (of {len(other)} that differ: {', '.join(sorted(other))}); choose a new file or remove this one"
        )
