"""See what a trained vision network computes: chains, interactions, sparse heads."""
