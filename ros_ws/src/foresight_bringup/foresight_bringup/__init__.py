"""Which processes make up Foresight, and how they are started together."""
