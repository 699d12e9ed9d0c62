"""Action names against videos: names, proposals, localization, classification, and learning from examples."""
