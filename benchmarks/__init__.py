"""Speed, memory and agreement of intaglio beside diffusers, measured in one run on one machine."""
