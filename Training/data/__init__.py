"""Nodules and images with their readers: read from folders, split by patient, prepared from public data."""
