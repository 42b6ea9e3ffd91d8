"""Device side: request queue, batching scheduler, recognizer and loaded models."""
