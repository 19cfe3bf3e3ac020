"""From a trained model to a .tflite file, and what an engineer asks of that file.

Import from the modules (``from tflite.convert import convert``): this one stays empty, so
that the command answers ``--help`` without loading TensorFlow.
"""
