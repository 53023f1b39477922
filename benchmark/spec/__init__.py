"""What things are, by name: data sets, protocols, networks, runs, jobs and tuning. No torch."""
