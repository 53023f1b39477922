"""From a sweep file to runs, jobs, and what they cost."""
