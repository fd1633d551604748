"""What both modules do with MRML nodes: lattices, transforms, labelmaps, undo, packages, and the worker's thread."""
