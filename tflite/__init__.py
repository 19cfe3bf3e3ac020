"""Conversion of models to .tflite files; verification, inspection and deployment of the files.

Import from the modules (``from tflite.convert import convert``): this one stays empty, so
that the command answers ``--help`` without loading TensorFlow.
"""
