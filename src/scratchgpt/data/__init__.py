"""What sits between a data set and a batch."""
