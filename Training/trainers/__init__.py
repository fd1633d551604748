"""Training loops: the plain one, with a discriminator, of patch classifiers; optimization and starts."""
