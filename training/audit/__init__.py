"""Audit of a source of images: duplicates, doubtful labels, and pictures of poor quality."""
