"""From good images to a finished run: the trainer, run folders, checkpoints."""
