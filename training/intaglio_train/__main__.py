"""`python -m intaglio_train lora|controlnet CONFIG.yaml`."""

from intaglio_train.command import app

app(prog_name="intaglio train")
