"""The network: as a list of layers, and as TF-Slim defines it."""
