"""Ready plugins. They use the author's kit and the libraries of the extra ``gallery``."""
