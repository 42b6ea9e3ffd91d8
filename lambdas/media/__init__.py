"""Media files in S3, decoded with FFmpeg: random access, probing, and clip extraction. Independent of jobs and tables."""
