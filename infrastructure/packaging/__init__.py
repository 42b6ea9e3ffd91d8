"""Makes what runs on AWS out of this repository: code, layers and the instances' bundle, byte for byte the same each time."""
