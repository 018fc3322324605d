"""The code that stages run: its digest, and which finished stages were made by other code."""
