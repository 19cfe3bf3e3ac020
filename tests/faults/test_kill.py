"""``kill -9`` at twenty-four moments of one run, each followed by the same command.

In the end nothing distinguishes the run from one that was never killed.
"""

import random
import signal
from pathlib import Path
from typing import Any

from command import Moment, run
from state import left_by

# In the order of the run's life. A checkpoint is written every five of 22 steps and after each
# epoch. `_to_disk` is called twice per file, before and after it is renamed, and `write_epochs`
# once when a run is resumed.
CHOSEN = (
    Moment("training.results:save_experiment"),  # an empty folder
    Moment("training.checkpoint:safetensors.numpy.save"),  # no checkpoint yet
    Moment("training.train:_check_loss", 4),  # in the first steps
    Moment("pathlib:Path.write_bytes", 2, half=True),  # in the write of the checkpoint at step 10
    Moment("keras_resnet.files:_to_disk", 1),  # it is complete, but not renamed
    Moment("keras_resnet.files:_to_disk", 4, after=True),  # renamed, the old one not yet removed
    Moment("training.train:_check_loss", 3),  # between two checkpoints
    Moment("training.train:_validate"),  # the last step of the epoch is done
    Moment("training.train:_validate", after=True),  # between raw and averaged weights
    Moment("training.train:_close_epoch"),  # validated, nothing saved
    Moment("training.train:write_epochs", 2),  # the epoch is saved, no log
    Moment("training.run:Run.write_rows", 1, after=True),  # of the log only the CSV
    Moment("training.results:save_model", 1, after=True),  # best.keras is written
    Moment("training.results:_write_tensorboard", 1, after=True),  # between two epochs
    Moment("pathlib:Path.write_bytes", 3, half=True),  # in a checkpoint of the second epoch
    Moment("training.train:write_results"),  # all epochs are done, no model file
    Moment("training.run:Run.write", 1),  # the model file is written, no figures
    Moment("training.run:Run.write", 1, after=True),  # finished, not evaluated
)
# After these of them also at a random moment before the next checkpoint.
AND_BY_CHANCE = (3, 4, 5, 6, 13, 14)


def test_killed_at_any_moment_it_ends_as_if_undisturbed(
    undisturbed: dict[str, Any], out: Path
) -> None:
    chance = random.Random(0)
    kills = 0
    for number, moment in enumerate(CHOSEN):
        code, output = run(out, moments=(moment,))
        assert code == -signal.SIGKILL, f"{moment} was never reached: {output}"
        kills += 1
        if number in AND_BY_CHANCE:
            _kill_by_chance(out, chance)
            kills += 1
    assert kills == 24
    code, output = run(out)
    assert code == 0, output
    assert left_by(out) == undisturbed
    assert not [path for path in out.rglob("*") if ".writing." in path.name]


def _kill_by_chance(out: Path, chance: random.Random) -> None:
    """Kills it after a random number of function calls, and within four steps."""
    calls = round(10 ** chance.uniform(0, 6))
    resumed = Moment("training.train:_restore", after=True, calls=calls)
    code, output = run(out, moments=(resumed, Moment("training.train:_check_loss", 4)))
    assert code == -signal.SIGKILL, output
    assert "resuming after" in output
