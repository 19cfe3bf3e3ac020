"""Damages a .tflite file at random and tries it: ``fuzz_tflite.py SOUND SCRATCH COUNT``.

Runs in a process of its own, so that a crash of this one, which the product must prevent, is
seen. Prints each of the COUNT mutations before it is tried. Mutation ``i`` is always the same.
"""

import sys
from pathlib import Path

import numpy as np
from fuzz_weights import mutated

from tflite.classifier import Classifier
from tflite.model import sandbox


def check(path: Path) -> None:
    try:
        classifier = Classifier(path, threads=1)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        assert path.name in str(error)
        return
    shape = (1, classifier.contract.height, classifier.contract.width, classifier.contract.channels)
    assert classifier.probabilities(np.zeros(shape, "uint8")).shape[0] == 1


def main(sound: Path, scratch: Path, count: int) -> None:
    data = np.frombuffer(sound.read_bytes(), "uint8")
    path = scratch / "damaged.tflite"
    for seed in range(count):
        print(f"mutation {seed}", flush=True)
        path.write_bytes(mutated(data, seed))
        check(path)


if __name__ == "__main__":
    sandbox.START_SECONDS = 5  # damage makes the interpreter loop or take all memory now and then
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
