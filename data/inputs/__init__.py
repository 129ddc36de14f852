"""What a camera gives, by kind: read, checked, fitted and shown in one place, for training and the line alike."""
