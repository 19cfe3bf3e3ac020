"""Damages weights files at random and reads them: ``fuzz_weights.py SOUND SCRATCH COUNT``.

COUNT mutations of each file. Prints each before it is read, so that a crash tells its number, and
at last a line of JSON with the files. Mutation ``i`` of a file is always the same.
"""

import json
import sys
from pathlib import Path

import numpy as np

from keras_resnet.weights.formats import sandbox
from keras_resnet.weights.formats.readers import read_tensors


def mutated(data: np.ndarray, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    data, place = data.copy(), int(rng.integers(len(data)))
    match seed % 5:
        case 0:
            data[place] ^= 1 << rng.integers(8)
        case 1:
            data = data[:place]
        case 2:
            data[place : place + rng.integers(1, 9)] = rng.choice([0, 127, 128, 255])
        case 3:
            for other in rng.integers(len(data), size=6):
                data[other] = rng.integers(256)
        case 4:
            data = np.delete(data, slice(place, place + rng.integers(1, 16)))
    return data.tobytes()


def check(path: Path) -> None:
    try:
        tensors = read_tensors(path)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return
    assert tensors.arrays
    assert all(np.isfinite(array).all() for array in tensors.arrays.values())


def main(sound: Path, scratch: Path, count: int) -> None:
    files = {path.name: np.frombuffer(path.read_bytes(), "uint8") for path in sound.iterdir()}
    for name, data in sorted(files.items()):
        for seed in range(count):
            print(f"mutation {seed} of {name}", flush=True)
            (scratch / name).write_bytes(mutated(data, seed))
            check(scratch / name)
    print(json.dumps(sorted(files)))


if __name__ == "__main__":
    sandbox.START_SECONDS = 5  # damage makes the HDF5 library hang once in some hundred times
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
