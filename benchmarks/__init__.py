"""What was measured: `python -m benchmarks.FOLDER.NAME` makes the tables and pictures in FOLDER/results."""
