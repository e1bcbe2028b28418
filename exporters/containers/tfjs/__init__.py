"""TF.js graph models."""
