"""The five systems as recipes over shared parts, and what a training leaves of them."""
