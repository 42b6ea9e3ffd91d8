"""Video in S3 as FFmpeg sees it: read by ranges, looked into, cut into windows. Knows no job and no table."""
