"""Importers: write a raw dataset from files in another layout; one layout a file."""
