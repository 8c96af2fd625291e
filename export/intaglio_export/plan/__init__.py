"""What a build must do: stages, their keys, their records. Nothing here imports torch at the top of a file."""
