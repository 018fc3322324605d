"""Options that change how fast a step is and how much memory it takes, and not what it computes."""
