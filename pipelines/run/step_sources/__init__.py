"""Where steps are made: by threads, by worker processes, or joined from both; and copied to a GPU ahead."""
