"""What makes data: simulations, solver processes, their failures, and what is decided of them."""
