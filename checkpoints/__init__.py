"""What comes in: TF-Slim checkpoints of inception_resnet_v2."""
