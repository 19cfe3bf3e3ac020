"""``keras-resnet``: one command from images to a phone.

Results go to stdout, everything else to stderr; ``keras-resnet --help`` lists the exit codes.
Heavy modules are imported inside functions, so that ``--help`` is instant.
"""

from __future__ import annotations

import importlib
import sys

# Each adds its subcommands, in the order that --help lists them.
MODULES = ("models", "audit", "training", "tflite", "run")


def main() -> None:
    """The entry point of the command; exits with its exit code."""
    try:
        from keras_resnet.cli.app import run_command

        for name in MODULES:
            importlib.import_module(f"{__name__}.{name}")
    except KeyboardInterrupt:
        print("keras-resnet: stopped", file=sys.stderr)
        sys.exit(130)
    run_command(sys.argv[1:])


__all__ = ["main"]
