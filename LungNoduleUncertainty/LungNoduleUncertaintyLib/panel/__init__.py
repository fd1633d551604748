"""The module's panel, one file for each part of it."""
