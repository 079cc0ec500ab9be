"""What a model can be trained for, a module for each kind; `base` says what the loop asks of them."""
