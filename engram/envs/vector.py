"""Many environments at once: lanes spread over worker processes, each lane reset and stepped on its own."""

import contextlib
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np

Reset = tuple[Any, dict[str, Any]]
Step = tuple[Any, float, bool, bool, dict[str, Any]]


class EnvError(RuntimeError):
    """An environment failed; the message holds the traceback of its process.

    lane  which
    gone  where its process has ended: all lanes of that process, any of which may be the cause. The next `reset` starts
          a new one
    """

    def __init__(self, lane: int, text: str, gone: tuple[int, ...] = ()):
        super().__init__(lane, text, gone)  # the arguments themselves, so that it survives the way through a pipe
        self.lane, self.text, self.gone = lane, text, gone

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
        self.seconds = 0.0  # that its caller has waited for environments; the start of worker processes included
        count = min(workers, lanes)
        self._here = {} if workers else {lane: make() for lane in range(lanes)}
        self._workers = [_Worker(make, list(range(i, lanes, count))) for i in range(count)]

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Reset]:
        """Start an episode of the given seed in each lane named; of a process that is gone another takes the place."""
        return self._ask("reset", seeds)

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Step]:
        """One control tick of each lane named, in parallel over workers."""
        return self._ask("step", actions)

    def close(self) -> None:
        """Close environments and end the processes."""
        for env in self._here.values():
            env.close()
        for worker in self._workers:
            worker.send("close", {})
        for worker in self._workers:
            worker.end()
        self._here, self._workers = {}, []

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, verb: str, values: Mapping[int, Any]) -> dict[int, Any]:
        began = time.perf_counter()
        try:
            for worker in self._workers if verb == "reset" else ():
                worker.revive()
            return self._answers(verb, values)
        finally:
            self.seconds += time.perf_counter() - began

    def _answers(self, verb: str, values: Mapping[int, Any]) -> dict[int, Any]:
        if self._here:
            return _collect(_do(self._here, verb, values), values)
        asked = []
        for worker in self._workers:
            share = {lane: values[lane] for lane in worker.lanes if lane in values}
            if share:
                asked.append((worker, share))
                worker.send(verb, share)
        answers: dict[int, Any] = {}
        for worker, share in asked:
            answers |= worker.receive(share)
        return _collect(answers, values)


class _Worker:
    """A process with some of the lanes."""

    def __init__(self, make: Callable[[], gymnasium.Env], lanes: list[int]):
        self.make, self.lanes = make, lanes
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked simulator would share its parent's rendering context
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.make, self.lanes), daemon=True)
        self.process.start()
        theirs.close()
        self.told = self.gone = False

    def revive(self) -> None:
        """Start again if the process is gone."""
        if self.gone or not self.process.is_alive():
            self.process.kill()
            self.end()
            self._start()

    def send(self, verb: str, share: Mapping[int, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # its process is gone, which `receive` will report
            self.pipe.send((verb, share))

    def receive(self, share: Mapping[int, Any]) -> dict[int, Any]:
        """The answers; if the process has died, a failure for each lane that it was asked about."""
        try:
            if not self.told:
                self.told = self.pipe.recv()  # that its environments are made
            return self.pipe.recv()
        except (EOFError, OSError):  # OSError: it died in the middle of an answer
            self.gone = True
            self.process.join(5)
            text = f"its process ended without a word (exit code {self.process.exitcode})"
            return {lane: EnvError(lane, text, tuple(self.lanes)) for lane in share}

    def end(self) -> None:
        """Wait for the process that was told to close; kill it if it does not."""
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()
        self.pipe.close()


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
    try:
        envs, failed = {lane: make() for lane in lanes}, ""
    except Exception:  # noqa: BLE001  likewise
        envs, failed = {}, traceback.format_exc()
    pipe.send(True)
    while True:
        try:
            verb, values = pipe.recv()
        except EOFError:
            return
        if verb == "close":
            for env in envs.values():
                env.close()
            return
        pipe.send({lane: EnvError(lane, failed) for lane in values} if failed else _do(envs, verb, values))
