"""Whether this machine has what kdseg needs. No torch."""
