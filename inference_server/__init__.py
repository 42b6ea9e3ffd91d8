"""Gorggle inference server: video in over gRPC, time-aligned words out."""
