"""Post-training quantization to int8, tuned on calibration images layer by layer.

``int8.py`` tells the story; the other modules are its steps. Nothing here knows Keras: it
starts from the bytes of a float32 .tflite file and ends with those of a quantized one.
"""
