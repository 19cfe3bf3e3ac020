"""Hyperparameter search with KerasTuner; ``tune.py`` is the entry point."""
