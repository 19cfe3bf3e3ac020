"""Checks of a TFLite file: accuracy, layer errors, golden outputs, lint, preflight."""
