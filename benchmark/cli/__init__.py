"""The command line `kdseg`: one module per group of commands."""
