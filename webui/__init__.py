"""Reserved for the search page; nothing is here yet."""
