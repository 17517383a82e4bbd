"""What computes: Celery as transport, the runner of analyses, and what watches over them."""
