"""A model behind HTTP: predictions, timelines, streams and a page to try them on."""
