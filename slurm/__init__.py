"""Launchers: they start the jobs of a plan, here or on a cluster; they decide nothing about training."""
