"""The sweep as a flow of Prefect's, with a task for each stage."""
