"""Interleaved timing of peers, each in a separate process.

A change in the speed of the machine then affects all of them. Between its turns a process is
stopped (SIGSTOP), so that it cannot fill buffers or spin while another is timed. The first round is
not counted.
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

# Sets a peer up, and returns a function that takes one turn.
SetUp = Callable[..., Callable[[], Any]]


@dataclass(frozen=True)
class Peer:
    """A peer, ``set_up(*arguments)``; a new process must be able to import its module."""

    set_up: SetUp
    arguments: tuple[Any, ...] = ()


def interleaved(peers: dict[str, Peer], rounds: int) -> dict[str, list[Any]]:
    """The results of the turns of each peer, in the order of the rounds.

    A peer that cannot be set up is left out; the reason is printed to stderr.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = {}
    for name, peer in peers.items():
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, peer), daemon=True)
        process.start()
        there.close()
        if reason := _failure(here):  # one after another: start-up uses all cores
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
    """Peak resident memory of this process (Linux reports it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _failure(pipe: Connection) -> str | None:
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
