"""Pictures and labels: found, checked, prepared, copied to a node, loaded in batches."""
