"""The sweep as a Prefect flow with a task for each stage."""
