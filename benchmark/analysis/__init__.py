"""What figures need networks for: `kdseg analyze cka | panels` write data files, which figures read without torch."""
