"""The gateway: HTTP in, JSON out. It never imports torch or OpenVINO."""
