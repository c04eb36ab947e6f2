"""What was observed: images, their spaces and labels, and values of fields."""
