"""Post-training quantization to int8, tuned on calibration images layer by layer.

``int8.py`` is the sequence of steps; the other modules are the steps. Nothing here knows Keras:
from the graph of a float32 .tflite file to that of a quantized one.
"""
