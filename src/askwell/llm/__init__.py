"""Every word that is exchanged with a language model behind an endpoint."""
