"""The local AWS with fake Amazon Transcribe and Rekognition, injected faults and faster retries."""
