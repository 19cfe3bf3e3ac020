"""Training: images in, a run folder with a trained model out."""
