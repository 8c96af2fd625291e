"""`intaglio generate`: the options, what they ask for, the answer as it comes, and the files."""
