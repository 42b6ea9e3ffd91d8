"""Vision: face detection, face tracking and mouth crops from grayscale frames."""
