"""What sets the versions of the TF2 SavedModel format apart."""

WITHOUT_SIGNATURE = False
WITH_SIGNATURE = True
"""Whether there is the signature "serving_default"."""
