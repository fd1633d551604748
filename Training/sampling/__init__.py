"""Batches for training and figures for validation, by task: volumes, single slices, super-resolution."""
