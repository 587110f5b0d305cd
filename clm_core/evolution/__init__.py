"""Generations of training parameters: the better ones have children, and what comes out is only proposed."""
