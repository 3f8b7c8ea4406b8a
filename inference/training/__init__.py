"""The recipe of the bundled demonstration model: made here, on a CPU, from procedural bodies.

`python -m inference.training` renders samples, trains a small PlainConvUNet in a plain loop,
measures it on bodies it never saw and writes an nnU-Net v2 model folder with its card. The running
product imports nothing from here.
"""
