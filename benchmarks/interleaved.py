"""Peers that are timed turn by turn, each in a process of its own.

A machine that slows down meanwhile then does so for all. Between its turns a process is stopped
(SIGSTOP): nobody fills buffers, or spins, in another's time. The first round is not counted.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

# Sets a peer up, and returns the function whose calls are the peer's turns.
SetUp = Callable[..., Callable[[], Any]]


@dataclass(frozen=True)
class Peer:
    """What is timed: ``set_up(*arguments)``, of a module that a new process can import."""

    set_up: SetUp
    arguments: tuple[Any, ...] = ()


def interleaved(peers: dict[str, Peer], rounds: int) -> dict[str, list[Any]]:
    """What the turns of each peer returned, round by round.

    A peer that cannot be set up is left out, with its reason on stderr.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = {}
    for name, peer in peers.items():
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, peer), daemon=True)
        process.start()
        there.close()
        if reason := _answer(here):  # one after another: starting takes all cores
            print(f"{name}: left out: {reason}", file=sys.stderr)
            process.join()
            continue
        os.kill(process.pid or 0, signal.SIGSTOP)
        pipes[name], processes[name] = here, process
        print(f"{name}: ready", file=sys.stderr)
    found: dict[str, list[Any]] = {name: [] for name in pipes}
    for number in range(1 + rounds):
        for name, pipe in pipes.items():
            os.kill(processes[name].pid or 0, signal.SIGCONT)
            pipe.send(None)
            found[name].append(pipe.recv())
            os.kill(processes[name].pid or 0, signal.SIGSTOP)
        print(f"round {number} of {rounds}", file=sys.stderr)
    for process in processes.values():
        process.kill()
        process.join()
    return {name: turns[1:] for name, turns in found.items()}


def peak_bytes() -> int:
    """The most memory this process has held at once (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _answer(pipe: Connection) -> str | None:
    try:
        return pipe.recv()
    except EOFError:
        return "its process died"


def _serve(pipe: Connection, peer: Peer) -> None:
    try:
        turn = peer.set_up(*peer.arguments)
    except ImportError as error:
        pipe.send(str(error))
        return
    except Exception:
        traceback.print_exc()
        pipe.send("it failed, see above")
        return
    pipe.send(None)
    while True:
        pipe.recv()
        pipe.send(turn())
