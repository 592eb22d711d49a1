"""The evidence for the bounds: each module regenerates one table of results/."""
