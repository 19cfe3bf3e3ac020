"""What a hyperparameter search is made of; ``training.tune`` puts it together."""
