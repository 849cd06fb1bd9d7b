"""Provenance: the commit is this package's own, and the cores are those that may be used."""

import os
import subprocess

import pytest

from engram import provenance


@pytest.mark.parametrize("tracked", [True, False])
def test_commit_is_that_of_the_repository_that_tracks_the_package(tmp_path, monkeypatch, tracked):
    """And not that of a project in whose folder a virtual environment happens to lie."""
    package = tmp_path / "lib" / "engram"
    package.mkdir(parents=True)
    (package / "provenance.py").touch()
    git(tmp_path, "init", "-q")
    if tracked:
        git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-q", "--allow-empty", "-m", "m")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.commit() == (git(tmp_path, "rev-parse", "HEAD") if tracked else "unknown")


@pytest.mark.parametrize(("changed", "mark"), [("engram/a.py", "-dirty"), ("results/a.md", ""), ("README.md", "")])
def test_only_what_can_change_a_number_makes_it_dirty(tmp_path, monkeypatch, changed, mark):
    """A study that rewrites its own table between two sittings does not."""
    for name in ("engram/provenance.py", changed):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-q", "-m", "m")
    (tmp_path / changed).write_text("after")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "engram" / "provenance.py"))
    assert provenance.commit() == git(tmp_path, "rev-parse", "HEAD") + mark


def git(folder, *arguments):
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(("quota", "cores"), [(None, 4), ("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1)])
def test_cores_are_those_that_may_be_used(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7}, raising=False)
    monkeypatch.setattr(provenance, "QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        provenance.QUOTA.write_text(quota + "\n")
    assert provenance.cores() == cores
