"""What a hyperparameter search is made of; ``training.tuning.tune`` puts it together."""
