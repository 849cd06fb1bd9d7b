"""Where a number comes from: the commit, the versions and the machine, which every result file carries; and the plan.

A plan is what decides the contents of a folder. It is kept there, so that what one plan made is never taken for
another's.
"""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "engram-vla",
    "torch",
    "diffusers",
    "numpy",
    "mujoco",
    "mani-skill",
    "sapien",
    "mikasa-robo-suite",
    "gymnasium",
    "av",
    "pyarrow",
    "matplotlib",
)
DECIDES = ("engram", "recipes", "benchmarks", "pyproject.toml", "constraints.txt")  # of a checkout: what makes numbers
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU and of the period they are for


def commit() -> str:
    """Hash of the checked-out commit, '-dirty' if files that can change a number differ, 'unknown' outside a checkout.

    A virtual environment may lie in the checkout of another project: this file must be one of those tracked there.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return "unknown"
    root = Path(_git("rev-parse", "--show-toplevel") or ".")
    decides = [str(root / name) for name in DECIDES]
    sha, dirty = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no", "--", *decides)
    return "unknown" if sha is None else sha + ("-dirty" if dirty else "")


def versions() -> dict[str, str]:
    """Package -> installed version, of those that can change a result; 'absent' where not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def machine() -> dict[str, str | int | float]:
    """What the numbers were computed on: processor, cores this process may use, memory in GB, GPU if any, system."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(pages / 1e9, 1),
        **gpu(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cores() -> int:
    """How many cores this process may use: those it is bound to, and no more than its container's quota."""
    bound = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota, period = QUOTA.read_text().split() if QUOTA.is_file() else ("max", "1")
    return bound if quota == "max" else max(1, min(bound, int(quota) // int(period)))


def gpu() -> dict[str, str]:
    """The name of the GPU that PyTorch would use; empty without one."""
    import torch  # here and not above: a folder's plan should not load it

    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def settle(folder: Path, plan: dict[str, Any]) -> None:
    """Keep in folder/plan.json what decides what is made there. ValueError if the folder is another plan's.

    A folder without the file is new.
    """
    file, asked = folder / "plan.json", json.loads(json.dumps(plan))
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(asked, indent=1) + "\n")
        os.replace(draft, file)  # a kill never leaves half a plan
        return
    try:
        found = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}: expected the plan of this folder in JSON, found {error}; delete the folder"
        ) from None
    if other := [key for key in {**asked, **found} if asked.get(key) != found.get(key)]:
        differs = f"a run with other {', '.join(other)}"
        raise ValueError(
            f"{folder}: expected a new folder or this plan, found {differs}; choose another --out or delete it"
        )


def short(sha: str) -> str:
    """The first twelve digits of a commit, and still '-dirty' where it was."""
    return sha[:12] + ("-dirty" if sha.endswith("-dirty") else "")


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()
