"""Audit every task of the tabletop and write results/tabletop_audit: is it possible, what is chance, does it leak?

python recipes/audit_tabletop.py        # about a minute for each task on one core
"""

import time
from pathlib import Path

from engram.envs.tabletop import TASKS, audit
from engram.report.table import write_result

NOTES = """\
`expert`: the scripted expert, which is told the answer. `blind expert`: the same, going for a candidate at random; its
success is chance (conveyor: one who waits until the cube is back in view). `leak probe`: a quadratic ridge classifier
reads the answer off both images and the proprioception at the first tick of choice; fitted on as many episodes again,
accuracy on episodes held out, whose interval has to contain `chance`. The same probe with the cue in the picture, at
the first tick of the cue (`at_cue`) and at the first tick of choice of the visible twin (`visible_twin`), shows that it
would see a leak."""


def main(path: Path = Path("results/tabletop_audit.json")) -> None:
    """Seeds from 0: 500 of the expert, 1000 blind and 2000 of the probe, each per task."""
    started = time.monotonic()
    rows = [played("expert", task, audit.expert_success(task)) for task in TASKS]
    rows += [played("blind expert", task, audit.chance(task)) for task in TASKS]
    rows += [probed(task) for task, knobs in TASKS.items() if not knobs["visible"]]
    write_result(
        path,
        "Audit of the tabletop tasks",
        "python recipes/audit_tabletop.py",
        rows,
        time.monotonic() - started,
        {"episodes": sum(row["episodes"] for row in rows)},
        {"tasks": TASKS},
        NOTES,
    )


def played(policy: str, task: str, rate: audit.Row) -> audit.Row:
    """A row of the table for episodes that were played."""
    return {"policy": policy, "task": task, "train_seed": None, **rate}


def probed(task: str) -> audit.Row:
    """A row of the table for the probe; its accuracy stands where the others have their success."""
    found = audit.leak_probe(task)
    row = {"episodes": found["episodes"], "successes": found["successes"], "success": found["accuracy"]}
    controls = {"chance": found["chance"], "at_cue": found["cue"], "visible_twin": found["visible"]}
    return played("leak probe", task, {**row, "ci95": found["ci95"], **controls})


if __name__ == "__main__":
    main()
