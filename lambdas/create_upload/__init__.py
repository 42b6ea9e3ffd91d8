"""Makes a job and an address to send its video to."""
