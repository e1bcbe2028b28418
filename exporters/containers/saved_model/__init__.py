"""The TF2 SavedModel format: v4 and v5."""
