"""Sources of images, and the input pipeline."""
