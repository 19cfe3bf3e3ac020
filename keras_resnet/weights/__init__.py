"""Published weights: what there is, how it is fetched, and how it is read into our networks."""
