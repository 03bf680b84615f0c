"""The real thing under fire: processes killed at random, and the same run over and over."""
