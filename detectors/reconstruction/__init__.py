"""Students, autoencoders and decoders that restore only normal features."""
