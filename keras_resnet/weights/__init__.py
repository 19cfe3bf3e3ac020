"""Pretrained weights: where they are published, files of every format, names of every library."""
