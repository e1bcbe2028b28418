"""Artifacts where TF Hub's clients look: their handles, caches, and archives."""
