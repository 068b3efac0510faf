"""Released checkpoints (DLF, TiTok, VQGAN) to the parameters of our networks."""
