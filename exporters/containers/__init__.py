"""One folder per container format: `container.py` has `write` and `open`, all that others use."""
