"""A generated chest CT with nodules of known outlines."""
