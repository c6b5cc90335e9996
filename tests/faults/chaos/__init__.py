"""Real training, hurt on purpose, and compared bit for bit with the run that nothing happened to
(see run.py)."""
