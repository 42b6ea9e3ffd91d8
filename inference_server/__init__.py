"""The Gorggle inference server: video in by gRPC, time-aligned words out."""
