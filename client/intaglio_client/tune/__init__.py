"""`intaglio tune`: the cheapest settings that draw the same picture, measured on a user's own model.

settings.py    one setting and the checks of its inputs
grid.py        which settings are tried
scenes.py      which pictures are drawn: prompts, poses, controls, LoRAs, seeds
serving.py     the server that draws
drawing.py     one picture of every scene with every setting, timed; goes on where it stopped
kept.py        pictures and seconds on disk
distances.py   how far two pictures are apart
pairs.py       means, medians and their standard errors
results.py     a row of figures for every setting, and the front of seconds against distance
choice.py      which setting becomes draft, standard, high and ultra
report.py      the results as a table, as a page and as JSON
chart.py, sheet.py, presets_file.py   the PNGs and the YAML file
run.py         the steps of a whole run
"""
