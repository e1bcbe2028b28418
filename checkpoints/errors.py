"""What can be wrong with a checkpoint that somebody gives us."""


class CheckpointError(Exception):
    """A path that holds no readable checkpoint of inception_resnet_v2."""
