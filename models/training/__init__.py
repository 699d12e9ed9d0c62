"""Training and evaluation: data sets, samples, losses, the loop, and figures."""
