"""`intaglio data`: from what is published and collected to folders that `intaglio train` reads.

bdd.py          BDD100K's label files, read in parts
bdd_words.py    the words for what a label file says
template.py     a caption's template, with its fields and optional parts
captions.py     files of captions, written and read
sources.py      images, captions and condition maps of one name, and what is missing on each side
table.py        the folder that `intaglio train` and Hugging Face's `datasets` read
measured.py     size, sharpness and hashes of an image
curating.py     which images are kept, and why the others are not
curated.py      what becomes of them: a folder, a table or a list
placed.py       files in a new folder, as links or copies; the folder is there as a whole or not at all
reporting.py    what the commands share
bdd_command.py, table_command.py, curate_command.py   the commands
command.py      all of them under one name
"""
