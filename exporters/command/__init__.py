"""The `irv2` command: what it takes, what it shows and how."""
