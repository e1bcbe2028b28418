"""What files of any tool's hold, and which network's numbers these are."""
