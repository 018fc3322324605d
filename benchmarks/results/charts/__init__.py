"""Charts as static SVG: numbers and styles in; an SVG for a page, or a file for a paper, out. Drawn by matplotlib."""
