"""The same files on an emulated Arm processor: LiteRT's aarch64 kernels under QEMU.

Python of an arm64 Debian and the aarch64 wheels of LiteRT and NumPy are kept in the cache folder;
QEMU's user mode runs that Python as one process, without booting a system.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_resnet.contract import Contract
from keras_resnet.preprocessing import decisions
from tflite.evidence.golden import QUANTIZATION_STEP, Golden

QEMU = "qemu-aarch64-static"
# Of the Raspberry Pi 4: neither dot products nor half precision in hardware.
CPU = "cortex-a72"
SUITE = "bookworm"
PYTHON = "usr/bin/python3.11"
# 2.3.0 crashes under QEMU 7.2 while it creates the interpreter.
WHEELS = ("ai-edge-litert==2.1.0", "numpy==2.2.6")
PLATFORMS = ("manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
# The largest allowed difference of a class other than the predicted one, in quantization steps;
# the predicted class may differ by one.
TAIL_STEPS = 2
# Processor time.
START_SECONDS = 60
SECONDS_AN_IMAGE = 120

# Runs a command with a limit on its processor time, in seconds.
LIMITED = """
import os, resource, sys
seconds = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
os.execv(sys.argv[2], sys.argv[2:])
"""

# Runs under emulation: without our packages, on Python 3.11 and NumPy.
PROGRAM = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
model, images, outputs = sys.argv[1:]
interpreter = Interpreter(model_path=model, num_threads=1)
interpreter.allocate_tensors()
input, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
rows = []
for image in np.load(images, allow_pickle=False):
    interpreter.set_tensor(input["index"], image[None].astype("float32"))
    interpreter.invoke()
    rows.append(interpreter.get_tensor(output["index"])[0])
    print(len(rows), flush=True)
np.save(outputs, np.stack(rows))
"""


@dataclass(frozen=True)
class ArmComparison:
    """One file on Arm against the same file on this machine.

    Attributes:
        kind: Which file.
        images: Number of images.
        same_top1: Number of images with the same predicted class, or the same labels.
        max_difference: Largest absolute difference of a probability, 0–1.
        where: Image and class of that difference, both counted from 0.
        tail: Image and class of each probability in the tail that differs by more than one
            quantization step, within what is allowed.
        broken: A sentence for each limit that is exceeded.
    """

    kind: str
    images: int
    same_top1: int
    max_difference: float
    where: tuple[int, int]
    tail: tuple[tuple[int, int], ...] = ()
    broken: tuple[str, ...] = ()


def compare_on_arm64(
    files: Mapping[str, str | os.PathLike[str]],
    golden: Golden,
    cache: str | os.PathLike[str],
    *,
    say: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ArmComparison]:
    """Runs each file on the golden images under emulation.

    Args:
        files: Path of each kind.
        golden: Images, and the outputs of the same kinds on this machine.
        cache: Folder of the Arm system; if missing, it is made: about 300 MB, a minute or two.
        say: Called with remarks on the progress.
        progress: Called with ``(images done, images in all)``, over all kinds.

    Raises:
        ValueError: A requirement is missing, or the emulated process crashed, which says
            nothing about the model.
    """
    system = arm_system(cache, say)
    count = len(golden.images)
    comparisons = []
    for number, (kind, path) in enumerate(files.items()):

        def done(images: int, before: int = number * count) -> None:
            progress(before + images, len(files) * count)

        done(0)
        outputs = _outputs(system, Path(path), golden.images, done)
        comparisons.append(compare(kind, golden.answers[kind], outputs, golden.contract))
    return comparisons


def compare(
    kind: str, here: np.ndarray, arm: np.ndarray, contract: Contract = Contract(None, None)
) -> ArmComparison:
    """Compares probabilities, float32 ``(images, outputs)``, from Arm with those from here.

    The probability of the predicted class may differ by one quantization step, and so may all
    probabilities of the tasks ``binary`` and ``multi``.
    """
    difference = np.abs(here.astype("float64") - arm)
    difference[np.isnan(difference)] = np.inf
    image, label = (int(i) for i in np.unravel_index(difference.argmax(), difference.shape))
    decided = decisions(here, contract)
    same = (decided == decisions(arm, contract)).reshape(len(here), -1).all(axis=1)
    broken = []
    if not same.all():
        what = "top-1" if contract.task == "single" else "decision"
        broken.append(f"another {what} on Arm for images {np.flatnonzero(~same).tolist()}")
    allowed = np.full(difference.shape, QUANTIZATION_STEP)
    if contract.task == "single":
        allowed[:] = TAIL_STEPS * QUANTIZATION_STEP
        allowed[np.arange(len(here)), decided] = QUANTIZATION_STEP
    if (over := difference > allowed * (1 + 1e-6)).any():
        broken.append(
            f"{int(over.sum())} probabilities differ by more than is allowed; at most "
            f"{difference[image, label]:.5f}, image {image}, class {label}"
        )
    tail = (difference > QUANTIZATION_STEP * (1 + 1e-6)) & ~over
    return ArmComparison(
        kind,
        len(here),
        int(same.sum()),
        float(difference.max()),
        (image, label),
        tuple((int(i), int(j)) for i, j in np.argwhere(tail)),
        tuple(broken),
    )


def _outputs(
    system: Path, model: Path, images: np.ndarray, progress: Callable[[int], None]
) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "images.npy", Path(folder) / "outputs.npy"
        np.save(inputs, images)
        root = system / "root"
        command = [shutil.which(QEMU), "-cpu", CPU, "-L", root, root / PYTHON, "-c", PROGRAM]
        code, stderr = _run(
            [*map(str, command), str(model.resolve()), str(inputs), str(outputs)],
            {"PYTHONPATH": str(system / "site"), "PYTHONDONTWRITEBYTECODE": "1"},
            START_SECONDS + SECONDS_AN_IMAGE * len(images),
            progress,
        )
        if code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
            raise ValueError(
                f"The emulated process used too much processor time on {model} and was stopped; "
                "that says nothing about the model"
            )
        if code or not outputs.is_file():
            raise ValueError(_crash(model, code, stderr))
        return np.load(outputs, allow_pickle=False)


def _run(
    command: list[str], environment: dict[str, str], seconds: float, progress: Callable[[int], None]
) -> tuple[int, str]:
    """The exit code, and stderr."""
    limited = [sys.executable, "-I", "-c", LIMITED, str(math.ceil(seconds)), *command]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            limited, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            try:
                for done, _ in enumerate(process.stdout or (), 1):
                    progress(done)
                process.wait()
            except BaseException:
                process.kill()
                raise
        errors.seek(0)
        return process.returncode, errors.read()


def _crash(model: Path, code: int, stderr: str) -> str:
    # QEMU returns 128 + the signal's number, or is killed by the signal itself.
    number = -code if code < 0 else code - 128
    named = number in {s.value for s in signal.Signals}
    why = signal.Signals(number).name if named else f"exit code {code}"
    last = (stderr.strip().splitlines() or ["no message"])[-1]
    return (
        f"The emulated process crashed on {model} ({why}): {last}. That is a fault of the "
        "emulation or of LiteRT there, and says nothing about the model"
    )


# --- The Arm system -----------------------------------------------------------------------


def arm_system(
    cache: str | os.PathLike[str], say: Callable[[str], None] = lambda message: None
) -> Path:
    """The folder of the Arm system, made if missing: ``root``, a Debian, and ``site``, the wheels.

    Raises:
        ValueError: QEMU, or what making the system needs, is missing.
    """
    if not shutil.which(QEMU):
        raise ValueError(f"There is no {QEMU}. Debian: apt-get install qemu-user-static")
    system = Path(cache) / f"arm64-{SUITE}-{'-'.join(WHEELS).replace('==', '-')}"
    if (system / "root" / PYTHON).exists():
        return system
    if not shutil.which("debootstrap") or not shutil.which("dpkg-deb"):
        raise ValueError("There is no debootstrap. Debian: apt-get install debootstrap")
    if os.geteuid():
        raise ValueError(
            "debootstrap makes the Arm system, once, and has to be run as root. Run this command "
            "as root, or set KERAS_RESNET_CACHE to a folder that has the system"
        )
    system.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".arm64.", dir=system.parent) as temporary:
        new = Path(temporary) / "system"
        _make_root(new / "root", say)
        _make_site(new / "site", say)
        new.rename(system)
    return system


def _make_root(root: Path, say: Callable[[str], None]) -> None:
    say(f"fetching Debian {SUITE} for arm64, about 80 MB, once …")
    _do(
        "debootstrap",
        *("--arch=arm64", "--foreign", "--variant=minbase", "--include=python3,libstdc++6"),
        *(SUITE, str(root)),
        tell=lambda line: say(line.removeprefix("I: ")) if "Retrieving" in line else None,
    )
    # The second stage would run the packages' scripts under emulation; their files are enough.
    packages = sorted((root / "var/cache/apt/archives").glob("*.deb"))
    say(f"unpacking {len(packages)} packages …")
    for package in packages:
        _do("dpkg-deb", "--extract", str(package), str(root))
        package.unlink()


def _make_site(site: Path, say: Callable[[str], None]) -> None:
    say(f"fetching {' and '.join(WHEELS)} for aarch64, 22 MB, once …")
    _do(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"),
        *("--only-binary=:all:", "--python-version=3.11", "--implementation=cp"),
        *(f"--platform={platform}" for platform in PLATFORMS),
        *(f"--target={site}", *WHEELS),
    )


def _do(*command: str, tell: Callable[[str], None] = lambda line: None) -> None:
    """Runs a command; calls ``tell`` with each line of its output."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            for line in process.stdout or ():
                lines.append(line.strip())
                tell(lines[-1])
        errors.seek(0)
        printed = [line for line in (*lines, *errors.read().splitlines()) if line.strip()]
    if process.returncode:
        raise ValueError(
            f"The Arm system could not be made: {command[0]} failed with exit code "
            f"{process.returncode}: {printed[-1] if printed else 'no message'}"
        )
