"""What was observed: masks, with their spaces and labels, and values of fields."""
