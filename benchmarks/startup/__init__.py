"""How long it takes to import coopt, and to come to a first plan."""
