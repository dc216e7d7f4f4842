"""The protocols of an evaluation: what one measured accuracy is about."""

EPISODES = "episodes"  # tasks of N random classes
FULL_WAY = "full-way"  # all classes of a split at once, for several draws of the support set
DRAWS = 10  # draws of a full-way evaluation
