"""``kill -9`` at twenty-four moments of one run, each followed by the same command.

In the end nothing tells the run from one that was never disturbed.
"""

import random
import signal
from pathlib import Path
from typing import Any

from command import Moment, run, start
from state import left_by

# In the order of the run's life. A checkpoint is written every five steps of 22, and after each
# epoch; `_to_disk` is called twice a file, before it is renamed and after.
CHOSEN = (
    Moment("training.train:save_experiment"),  # an empty folder
    Moment("training.checkpoint:safetensors.numpy.save"),  # no checkpoint yet
    Moment("training.train:_check_loss", 4),  # in the first steps
    Moment("pathlib:Path.write_bytes", 2, half=True),  # in the write of a checkpoint
    Moment("keras_resnet.files:_to_disk", 1),  # it is whole, but not renamed
    Moment("keras_resnet.files:_to_disk", 4, after=True),  # renamed, the old one still there
    Moment("training.train:_check_loss", 18),  # between two checkpoints
    Moment("training.train:_validate"),  # the last step of the epoch is done
    Moment("training.train:_validate", after=True),  # between raw and averaged weights
    Moment("training.train:_close_epoch"),  # validated, nothing saved
    Moment("training.train:_publish", 1),  # the epoch is saved, and nothing published
    Moment("training.run:Run.write_rows", 1, after=True),  # of the log only the CSV
    Moment("training.train:save_model", 1, after=True),  # best.keras is there
    Moment("training.train:_draw", 2, after=True),  # between two epochs
    Moment("pathlib:Path.write_bytes", 3, half=True),
    Moment("training.train:_write_results"),  # all is learned, no model file
    Moment("training.train:save_model", 1, after=True),  # the model file is there, no figures
    Moment("training.run:Run.write", 1, after=True),  # finished, not evaluated
)


def test_killed_at_any_moment_it_ends_as_if_undisturbed(
    undisturbed: dict[str, Any], out: Path
) -> None:
    chance = random.Random(0)
    kills = 0
    for number, moment in enumerate(CHOSEN):
        code, output = run(out, moment=moment)
        assert code == -signal.SIGKILL, f"{moment} was never reached: {output}"
        kills += 1
        if 3 <= number < 9:
            _kill_by_chance(out, chance)
            kills += 1
    assert kills == 24
    code, output = run(out)
    assert code == 0, output
    assert left_by(out) == undisturbed
    assert not [path for path in out.rglob("*") if ".writing." in path.name]


def _kill_by_chance(out: Path, chance: random.Random) -> None:
    """Kills it somewhere in the seconds after it has found its place, and within nine steps."""
    command = start(out, moment=Moment("training.train:_check_loss", 9))
    command.wait_until(lambda: "going on" in command.text)
    command.process.join(chance.uniform(0, 4))
    command.process.kill()
    assert command.end() == -signal.SIGKILL
