"""What runs in AWS Lambda: one folder a function, and the pure parts that they share."""
