"""One .tflite file: its graph, its metadata, its inputs and outputs."""
