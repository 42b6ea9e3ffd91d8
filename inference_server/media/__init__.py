"""Media decoding: container bytes to grayscale frames at 25 Hz and audio at 16 kHz."""
