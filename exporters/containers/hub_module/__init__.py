"""The TF1 Hub format: v1 and v3."""
