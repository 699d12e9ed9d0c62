"""Training of the built-in model: `python -m vsearch.models.mini.train --data DIR --work DIR`."""
