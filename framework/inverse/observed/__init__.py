"""The observation: masks, with their spaces and labels, and values of fields."""
