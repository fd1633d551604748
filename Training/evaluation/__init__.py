"""Figures of models on nodules of patients that they never saw, thresholds, and the export to bundles."""
