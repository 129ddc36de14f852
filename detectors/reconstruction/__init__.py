"""Students, autoencoders and decoders that give back only what is normal."""
