"""A finished profile comes in; a terminal page, an HTML page or a JSON document goes out."""
