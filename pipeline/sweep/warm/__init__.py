"""A process that has imported what the stages import, and forks for each stage."""
