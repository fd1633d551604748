"""From a point on a nodule to masks: find the nodule, predict, calibrate, threshold."""
