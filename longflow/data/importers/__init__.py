"""Importers: files in another layout to a raw dataset."""
