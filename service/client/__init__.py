"""What talks to a running service: uploads, watched folders."""
