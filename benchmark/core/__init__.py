"""What everything stands on: errors, strict data, whole files, paths, the environment of the code. No torch."""
