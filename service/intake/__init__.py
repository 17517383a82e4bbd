"""How an upload or a reference becomes a slide, in processes that may crash."""
