"""Measurements of this package, each a script that writes a JSON file and the table generated from it."""
