"""What a build must do: stages, their keys, their records, and how each is made."""
