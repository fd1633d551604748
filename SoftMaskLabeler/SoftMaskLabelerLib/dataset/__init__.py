"""Data sets of soft masks, laid out like DSNet's LNSM."""
