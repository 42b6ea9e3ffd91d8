"""Makes an uploaded object a job."""
