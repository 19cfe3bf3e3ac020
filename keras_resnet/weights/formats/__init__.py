"""Readers of weight files, each with its limits; HDF5 is read in a sandboxed process."""
