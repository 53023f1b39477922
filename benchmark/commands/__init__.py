"""What each command of `kdseg` does: thin shells over plan, launcher, store, tables and figures."""
