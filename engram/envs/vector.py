"""Many environments at once: lanes spread over worker processes, each lane reset and stepped on its own."""

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np

Reset = tuple[Any, dict[str, Any]]
Step = tuple[Any, float, bool, bool, dict[str, Any]]


class EnvError(RuntimeError):
    """An environment failed; the message holds the traceback of its process. `lane` says which."""

    def __init__(self, lane: int, text: str):
        super().__init__(lane, text)  # the arguments themselves, so that it survives the way through a pipe
        self.lane, self.text = lane, text

    def __str__(self) -> str:
        return f"environment of lane {self.lane} failed:\n{self.text}"


class VectorEnv:
    """`lanes` environments of `make()` in `workers` processes (0: in this one). Use as a context manager.

    `make` must pickle when workers > 0. Only the lanes that a call names move; lanes are independent, and the number
    of workers changes nothing but the time.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], lanes: int, workers: int):
        if lanes < 1 or workers < 0:
            raise ValueError(f"expected at least 1 lane and 0 or more workers, found {lanes} and {workers}")
        count = min(workers, lanes)
        shares = [list(range(i, lanes, count)) for i in range(count)]
        self._here = {} if workers else {lane: make() for lane in range(lanes)}
        context = multiprocessing.get_context("spawn")  # a forked simulator would share its parent's rendering context
        self._pipes: list[Connection] = []
        self._processes = []
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, share), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Reset]:
        """Start an episode of the given seed in each lane named."""
        return self._ask("reset", seeds)

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Step]:
        """One control tick of each lane named, in parallel over workers."""
        return self._ask("step", actions)

    def close(self) -> None:
        """Close environments and end the processes."""
        for env in self._here.values():
            env.close()
        for pipe in self._pipes:
            with contextlib.suppress(BrokenPipeError):  # it is gone already
                pipe.send(("close", {}))
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        for pipe in self._pipes:
            pipe.close()
        self._here, self._pipes, self._processes = {}, [], []

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, verb: str, values: Mapping[int, Any]) -> dict[int, Any]:
        if self._here:
            return _collect(_do(self._here, verb, values), values)
        count = len(self._pipes)
        asked = []
        for i, pipe in enumerate(self._pipes):
            share = {lane: value for lane, value in values.items() if lane % count == i}
            if share:
                asked.append((pipe, share))
                with contextlib.suppress(BrokenPipeError):  # its process is gone, which `_receive` will report
                    pipe.send((verb, share))
        answers: dict[int, Any] = {}
        for pipe, share in asked:
            answers |= _receive(pipe, share)
        return _collect(answers, values)


def _receive(pipe: Connection, share: Mapping[int, Any]) -> dict[int, Any]:
    """The answers of one worker; if it has died, a failure for each lane that it was asked about."""
    try:
        return pipe.recv()
    except (EOFError, ConnectionResetError):
        return {lane: EnvError(lane, "its process ended without a word") for lane in share}


def _collect(answers: dict[int, Any], order: Mapping[int, Any]) -> dict[int, Any]:
    """The answers in the order asked, or the first failure, once every lane has answered."""
    for lane in order:
        if isinstance(answers[lane], EnvError):
            raise answers[lane]
    return {lane: answers[lane] for lane in order}


def _do(envs: dict[int, gymnasium.Env], verb: str, values: Mapping[int, Any]) -> dict[int, Any]:
    answers: dict[int, Any] = {}
    for lane, value in values.items():
        try:
            answers[lane] = envs[lane].reset(seed=value) if verb == "reset" else envs[lane].step(value)
        except Exception:  # noqa: BLE001  whatever an environment raises is reported to the caller, whole
            answers[lane] = EnvError(lane, traceback.format_exc())
    return answers


def _serve(pipe: Connection, make: Callable[[], gymnasium.Env], lanes: list[int]) -> None:
    """A worker process: its lanes, one request after the other, until told to close or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the parent ends its workers
    envs = {lane: make() for lane in lanes}
    while True:
        try:
            verb, values = pipe.recv()
        except EOFError:
            return
        if verb == "close":
            for env in envs.values():
                env.close()
            return
        pipe.send(_do(envs, verb, values))
