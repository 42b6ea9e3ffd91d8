"""Draw results: captions over a video, and a timeline plot."""
