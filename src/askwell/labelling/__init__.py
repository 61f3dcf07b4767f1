"""From conversations to what training and evaluation read: turns with targets."""
