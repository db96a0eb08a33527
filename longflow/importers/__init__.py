"""Importers: write a raw dataset from files in another layout. Each layout is one module."""
