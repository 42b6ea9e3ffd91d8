"""An AWS on this machine: the stack's resources on moto, the functions as processes, the server as it is."""
