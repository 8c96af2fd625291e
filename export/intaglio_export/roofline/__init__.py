"""What each engine of a build computes and moves in a pass, its seconds, and what the device reaches."""
