"""Admission control: how many streams the device and the CPUs can serve."""
