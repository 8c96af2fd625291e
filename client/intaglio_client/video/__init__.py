"""`intaglio video`: pictures -> an MP4 or a GIF, one frame at a time.

options.py      the options of the command, and the values that they become
sources.py      which pictures, in which order
pictures.py     whether a file is whole, its size, its pixels
timeline.py     what each frame shows: a picture, how far it is, which one follows
views.py        a picture in the video's size, and how Ken Burns moves in it
transitions.py  a frame between two pictures
frames.py       the frames of a video, of which two pictures at most are in memory
binary.py       which ffmpeg, and what it can encode
encoders.py     encoders, in the order of preference, and what a quality means to each
encoding.py     frames -> ffmpeg -> a file that is there as a whole or not at all
command.py      the command
"""
