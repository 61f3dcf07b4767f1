"""Figures that say how good a policy is, and how sure they are."""
