"""Media: bytes in, grey frames at 25 Hz and 16 kHz sound out."""
