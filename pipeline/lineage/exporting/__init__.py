"""Write what dvc.lock says for other tools."""
