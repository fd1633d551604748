"""Size, density and mass of a nodule with intervals; size classes, table and figure."""
