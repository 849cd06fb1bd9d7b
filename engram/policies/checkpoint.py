"""Policies on disk: a folder with config.json (design, spec, format) and model.safetensors. Strict, atomic.

The design says how memory works, the tensors hold the normalisation of actions and proprioception: nothing else is
needed to go on from there, on this machine or from a repository of the Hugging Face Hub with these two files. A slim
checkpoint leaves out the tensors that ship with the package, and names the file that has them.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from typeguard import TypeCheckError, check_type

from engram.backbones import tiny
from engram.data.normalise import Normaliser
from engram.policies.base import Policy
from engram.policies.build import build
from engram.policies.design import BankDesign, Design
from engram.tensors import fill, read_tensors
from engram.types import Spec

FORMAT = 1
BACKBONE = "trunk.backbone."  # where a policy keeps its backbone


def save_pretrained(policy: Policy, design: Design, folder: Path | str) -> None:
    """Write a policy to `folder` (created; an existing one is replaced only when all is on disk)."""
    with Staged(Path(folder)) as new:
        write(policy, design, new)


def write(policy: Policy, design: Design, folder: Path) -> None:
    """Write the two files of a policy into an existing folder."""
    _write(_about(policy, design), policy.state_dict(), folder)


def _about(policy: Policy, design: Design) -> dict:
    return {"format": FORMAT, "design": asdict(design), "spec": asdict(policy.spec)}


def _write(config: dict, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def load(folder: Path | str) -> tuple[Policy, Design]:
    """The policy in `folder`, in evaluation mode. Raises ValueError naming what is missing, foreign or mis-shaped.

    Reads only, so that a checkpoint can be evaluated while its training goes on and replaces it.
    """
    folder = _whole(Path(folder))
    config = _config(folder)
    design, spec = _fields(Design, config["design"], folder), _fields(Spec, config["spec"], folder)
    policy = build(design, spec, Normaliser(torch.zeros(spec.action_dim), torch.ones(spec.action_dim)))
    fill(policy, _shipped(config, folder) | read_tensors(folder / "model.safetensors"), folder)
    return policy.eval(), design


def slim(folder: Path | str, out: Path | str) -> None:
    """Write the policy in `folder` to `out` without the tensors that ship with the package: the same policy, smaller.

    ValueError for an `out` that exists, and for a policy with a vision tower of its own: little would be left out.
    """
    out = Path(out)
    if _whole(out).exists():
        raise ValueError(f"{out}: expected a new folder, found an existing one; choose another or remove it")
    policy, design = load(folder)
    tensors = policy.state_dict()
    shared = {path: _shared(tensors, path) for path in tiny.SIDES}
    base = max(shared, key=lambda path: len(shared[path]))
    if not any(name.startswith(BACKBONE + "vision") for name in shared[base]):
        do = "publish it as it is"
        raise ValueError(f"{folder}: expected a vision tower that ships with the package, found another; {do}")
    config = _about(policy, design) | {"base": [base.name, _sha256(base)]}
    with Staged(out) as new:
        _write(config, {name: value for name, value in tensors.items() if name not in shared[base]}, new)


def _shared(tensors: dict[str, torch.Tensor], path: Path) -> set[str]:
    """Names of the tensors that are, bit for bit, those of a file of shipped weights."""
    shipped = _backbone(path)
    return {name for name, value in tensors.items() if name in shipped and torch.equal(shipped[name], value)}


def _shipped(config: dict, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors that a slim checkpoint leaves out, and others of that file that a policy has too; else none."""
    if "base" not in config:
        return {}
    name, expected = config["base"]
    path = {path.name: path for path in tiny.SIDES}.get(name)
    found = _sha256(path) if path is not None and path.is_file() else "no such file"
    if path is None or found != expected:
        do = "load it with the version of Engram that wrote it"
        raise ValueError(f"{folder}: expected shipped weights {name} with SHA-256 {expected}, found {found}; {do}")
    return _backbone(path)


def _backbone(path: Path) -> dict[str, torch.Tensor]:
    """Shipped weights, named as a policy names them."""
    return {BACKBONE + name: value for name, value in tiny.pretrained(path).state_dict().items() if "notes" not in name}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def from_pretrained(name: Path | str) -> tuple[Policy, Design]:
    """`load` from a folder or, for an "OWNER/NAME" that is none here, from the Hugging Face Hub (kept in its cache).

    Raises ValueError as `load` does, and for a name that is neither.
    """
    on_hub = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(name)) and not _whole(Path(name)).exists()
    return load(_fetched(str(name)) if on_hub else name)


def _fetched(name: str) -> str:
    from huggingface_hub import snapshot_download  # not above: folders do without it, and it takes a while to load

    try:
        return snapshot_download(name, allow_patterns=["config.json", "model.safetensors"])
    except OSError as error:
        found = str(error).partition("\n")[0]
        raise ValueError(
            f"{name}: expected a checkpoint folder here or a repository of the Hugging Face Hub, found neither "
            f"({found}); see that the name is right and the Hub within reach"
        ) from error


class Staged:
    """A folder written under another name and moved into place when the block ends without an error.

    A full disk or a kill in the middle leaves the previous folder as it was, or for `recover` to put back.
    """

    def __init__(self, folder: Path):
        self.folder, self.new = folder, folder.with_name(folder.name + ".new")

    def __enter__(self) -> Path:
        recover(self.folder)
        shutil.rmtree(self.new, ignore_errors=True)
        self.new.mkdir(parents=True)
        return self.new

    def __exit__(self, kind, error, trace) -> None:
        if error is not None:
            shutil.rmtree(self.new, ignore_errors=True)
            if isinstance(error, (OSError, SafetensorError)):
                kept = "the checkpoint that was there is as it was: make room and run the same command again"
                raise OSError(f"{self.folder}: expected to write a checkpoint, found: {error}; {kept}") from error
            return
        old = _old(self.folder)
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():
            os.replace(self.folder, old)
        os.replace(self.new, self.folder)
        shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Undo half a replacement: a kill between the two renames of `Staged` leaves the previous folder under `.old`.

    Only the process that writes `folder` may call this: during another's replacement it would break the second rename.
    """
    if _whole(folder) != folder:
        os.replace(_old(folder), folder)


def _whole(folder: Path) -> Path:
    """Where the last complete version of `folder` is: under its own name or, between two renames, under `.old`."""
    return _old(folder) if _old(folder).exists() and not folder.exists() else folder


def _old(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def _config(folder: Path) -> dict:
    path = folder / "config.json"
    if (folder / "checkpoint" / "config.json").is_file():
        raise ValueError(
            f"{folder}: expected a checkpoint folder, found a run that holds one; give {folder}/checkpoint"
        )
    if not path.is_file():
        raise ValueError(
            f"{folder}: expected a checkpoint folder with config.json, found none; give `engram train`'s output"
        )
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected JSON, found {error}; the file is damaged, use another checkpoint"
        ) from error
    ours = isinstance(config, dict) and config.get("format") == FORMAT
    if (
        not ours
        or not all(isinstance(config.get(part), dict) for part in ("design", "spec"))
        or not _sound_base(config)
    ):
        raise ValueError(
            f"{path}: expected an Engram checkpoint of format {FORMAT}, found a file of something else; "
            "give `engram train`'s OUT/checkpoint"
        )
    return config


def _sound_base(config: dict) -> bool:
    base = config.get("base", ["", ""])
    return isinstance(base, list) and len(base) == 2 and all(isinstance(part, str) for part in base)


def _fields(kind: type, values: dict, folder: Path):
    known = {f.name: f.type for f in fields(kind)}
    if kind is Design:  # checkpoints of before there was a bank say nothing of it
        values = values | {"bank": _bank(values.get("bank", asdict(BankDesign())), folder)}
    if set(values) != set(known):
        odd = ", ".join(sorted(set(values) ^ set(known)))
        raise ValueError(
            f"{folder}/config.json: expected the fields of {kind.__name__}, found a difference in {odd}; "
            "load it with the version of Engram that wrote it"
        )
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in values.items():
        try:
            check_type(value, known[name])
        except TypeCheckError as error:
            found = f"found {value!r}: {error}; the file was changed, use another checkpoint"
            raise ValueError(f"{folder}/config.json: {name}: expected {known[name]}, {found}") from error
    return kind(**values)


def _bank(values: object, folder: Path) -> BankDesign:
    if not isinstance(values, dict):
        found = f"found {values!r}; the file was changed, use another checkpoint"
        raise ValueError(f"{folder}/config.json: bank: expected the fields of BankDesign, {found}")
    return _fields(BankDesign, values, folder)
