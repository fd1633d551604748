"""The papers' losses."""
