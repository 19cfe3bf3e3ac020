"""``keras-resnet``: one command from images to a phone.

Results go to stdout and everything else to stderr. Exit codes: 0 done (or stopped by SIGTERM with
everything saved), 1 the model failed its verification or the training diverged, 2 something given
was wrong, 130 stopped by Ctrl-C. Heavy modules are imported inside each subcommand, so that
``--help`` answers at once.
"""

# Each module adds its subcommands, in the order that --help lists them.
from keras_resnet.cli import models, training, tflite, run  # noqa: F401, I001
from keras_resnet.cli.app import main

__all__ = ["main"]
