"""A page to try models in: what it finds and shows, as plain functions; gradio is needed by `page` alone."""
