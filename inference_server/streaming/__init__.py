"""One recognition stream: from decoded media to time-aligned segments."""
