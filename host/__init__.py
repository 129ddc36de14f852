"""What machine this is: processor, GPUs, packages and the extras that bring them."""
