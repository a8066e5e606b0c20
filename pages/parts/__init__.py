"""What several pages use: who is there, words and figures as they are shown, tables, charts, the page's address."""
