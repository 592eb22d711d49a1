"""The example that the command line shows: a fleet as CSV and a job as TOML."""
