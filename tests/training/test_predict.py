"""A SavedModel that cannot be read here is not called unreadable."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import tensorflow as tf

from training import export, predict


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (tf.errors.UnknownError(None, None, f"variables; {os.strerror(errno.EIO)}"), OSError),
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), OSError),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), OSError),
        (OSError("SavedModel file does not exist"), ValueError),
        (tf.errors.DataLossError(None, None, "checksum"), ValueError),
    ],
)
def test_only_damage_is_a_value_error(
    failure: Exception, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise failure

    monkeypatch.setattr(export, "read_contract", lambda folder: None)
    monkeypatch.setattr(tf.saved_model, "load", fails)
    with pytest.raises(kind) as error:
        predict.saved_model_predictor(tmp_path)
    assert type(error.value) is kind
    assert ("could not be read here" in str(error.value)) == (kind is OSError)
