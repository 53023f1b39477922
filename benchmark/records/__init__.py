"""What runs leave on disk: records, areas and scores, run directories, leases, archives. No torch."""
