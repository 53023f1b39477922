"""Published baselines, one file each; the file name is the registry, CLI and table name (`benchmark.method`)."""
