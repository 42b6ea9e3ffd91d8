"""Vision: grey frames in, faces followed and their mouths cut out."""
