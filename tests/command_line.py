"""The command as a person types it, run in the tests' own process."""

import sys

from keras_resnet import cli


def run(*arguments: object) -> int:
    """Runs the command in this process; returns its exit code."""
    before = sys.argv
    sys.argv = ["keras-resnet", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0
    finally:
        sys.argv = before
    return 0
