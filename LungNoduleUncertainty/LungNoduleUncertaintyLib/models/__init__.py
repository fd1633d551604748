"""Model bundles: what they hold, where they lie, what their networks see and what their outputs mean."""
