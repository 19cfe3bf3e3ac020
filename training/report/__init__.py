"""HTML pages, charts and TensorBoard summaries of runs and searches."""
