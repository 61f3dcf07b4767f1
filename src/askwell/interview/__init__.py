"""Two speakers, one conversation: whom an asker interviews, who decides, and how it ends."""
