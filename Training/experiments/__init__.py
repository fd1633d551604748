"""Experiments as data: TOML definitions, the jobs that they need, and the engines that run them side by side."""
