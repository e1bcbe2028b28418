"""Weights for timm's network, in PyTorch."""
