"""Files that slides come in, and the libraries that read them; `service.slide` stands on these and hides them."""
